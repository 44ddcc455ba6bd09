//! The shop's front page: what is sold, and what can be asked for. Plain HTML; a browser needs nothing else.

use std::fmt::Write as _;

use crate::catalog::{Page, Product};
use crate::notifications::euros;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Birch &amp; Anvil</title>
<style>
body { font: 16px/1.5 Georgia, serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #2b2722; background: #fbf9f4 }
h1 { margin-bottom: 0 } table { border-collapse: collapse; width: 100% } td { padding: .4rem .6rem .4rem 0; border-top: 1px solid #ddd5c5; vertical-align: top }
td:last-child { text-align: right; white-space: nowrap } small { color: #6d6457 } code { font-size: 14px }
</style>
</head>
<body>
<h1>Birch &amp; Anvil</h1>
<p>Hardware, garden and kitchen since the day before yesterday.</p>
"#;

const FOOT: &str = r#"</table>
<p>Behind this page: <a href="/products?query=oak&amp;limit=5">/products?query=&amp;limit=</a>, <code>/products/{sku}</code>,
<code>POST /orders</code>, <code>/orders/{id}</code>, <code>/stock?skus=</code>, <a href="/report">/report</a>.</p>
</body>
</html>
"#;

/// The front page with these products.
pub fn overview(page: &Page) -> String {
    let mut html = String::from(HEAD);
    let _ = writeln!(html, "<p>{} of our {} products:</p>\n<table>", page.products.len(), page.total);
    for Product { sku, name, category, price_cents, description, .. } in &page.products {
        let [sku, name, category, description] = [sku, name, category, description].map(|text| escape(text));
        let _ = writeln!(
            html,
            "<tr><td><a href=\"/products/{sku}\">{name}</a> <small>{category}</small><br>{description}</td><td>{}</td></tr>",
            euros(*price_cents)
        );
    }
    html.push_str(FOOT);
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_cannot_write_markup() {
        let product = Product {
            sku: "A-1".into(),
            name: "Nuts & <bolts>".into(),
            category: "Fixings".into(),
            price_cents: 250,
            weight_g: 1,
            description: "6\" long.".into(),
        };
        let html = overview(&Page { total: 120, products: vec![product] });
        assert!(html.contains("1 of our 120 products"));
        assert!(html.contains("Nuts &amp; &lt;bolts&gt;</a>"));
        assert!(html.contains("6&quot; long.</td><td>€ 2.50"));
    }
}
