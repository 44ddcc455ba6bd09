//! The catalogue: what is sold, and for how much. It only reads; what is on the shelves is inventory's.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::problem::{self, Problem};
use crate::serve;

const CATALOGUE: &str = include_str!("../data/catalogue.json");
/// Products in one answer, where the question does not say, and at most.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 500;

/// Something that is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its number in stock.
    pub sku: String,
    /// What it is called.
    pub name: String,
    /// Its department.
    pub category: String,
    /// In euro cents, tax included.
    pub price_cents: u64,
    /// What it weighs in its packet.
    pub weight_g: u32,
    /// What a customer wants to know.
    pub description: String,
}

/// An answer with some products.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// How many there are to the question.
    pub total: usize,
    /// The first of them.
    pub products: Vec<Product>,
}

/// All products by number.
struct Catalogue(BTreeMap<String, Product>);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
struct Question {
    query: Option<String>,
    limit: Option<usize>,
}

impl Catalogue {
    fn read() -> anyhow::Result<Self> {
        let products: Vec<Product> = serde_json::from_str(CATALOGUE).context("data/catalogue.json")?;
        Ok(Self(products.into_iter().map(|product| (product.sku.clone(), product)).collect()))
    }

    /// Products in whose name, department or number every word of the query stands; better matches first.
    fn find(&self, question: &Question) -> Page {
        let query = question.query.as_deref().unwrap_or_default().to_lowercase();
        let words: Vec<&str> = query.split_whitespace().collect();
        let mut found: Vec<_> = self.0.values().filter_map(|product| Some((rank(product, &words)?, product))).collect();
        found.sort_by_key(|(rank, product)| (*rank, product.name.as_str()));
        let limit = question.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
        Page {
            total: found.len(),
            products: found.into_iter().take(limit).map(|(_, product)| product.clone()).collect(),
        }
    }
}

/// 0: all words stand in the name; 1: in name, department and number; 2: in the description too; `None`: nowhere.
fn rank(product: &Product, words: &[&str]) -> Option<u8> {
    let name = product.name.to_lowercase();
    let label = format!("{name} {} {}", product.category.to_lowercase(), product.sku.to_lowercase());
    let all = format!("{label} {}", product.description.to_lowercase());
    let stand_in = |text: &str| words.iter().all(|word| text.contains(word));
    [name, label, all].iter().zip(0..).find_map(|(text, rank)| stand_in(text).then_some(rank))
}

async fn list(State(catalogue): State<Arc<Catalogue>>, Query(question): Query<Question>) -> Json<Page> {
    Json(catalogue.find(&question))
}

async fn show(State(catalogue): State<Arc<Catalogue>>, Path(sku): Path<String>) -> problem::Result<Json<Product>> {
    let product = catalogue.0.get(&sku).cloned();
    product.map(Json).ok_or_else(|| Problem::not_found(format!("the catalogue has no product {sku}")))
}

/// Serves the catalogue.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(serve::healthz))
        .route("/products", get(list))
        .route("/products/{sku}", get(show))
        .with_state(Arc::new(Catalogue::read()?));
    serve::serve(environment, router, serve::stop_on_signals()?).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_catalogue_is_worth_reading() {
        let listed: Vec<Product> = serde_json::from_str(CATALOGUE).unwrap();
        let distinct = |field: fn(&Product) -> &str| listed.iter().map(field).collect::<BTreeSet<_>>().len();
        assert!(listed.len() >= 100, "{} products", listed.len());
        assert_eq!(distinct(|product| &product.sku), listed.len());
        assert_eq!(distinct(|product| &product.name), listed.len());
        assert_eq!(distinct(|product| &product.description), listed.len());
        assert!(distinct(|product| &product.category) >= 6);
        for product in &listed {
            assert!(product.price_cents > 0 && product.weight_g > 0, "{product:?}");
            assert!(product.description.len() >= 30 && product.description.ends_with('.'), "{product:?}");
        }
    }

    #[test]
    fn finds_by_every_word_and_names_first() {
        let product = |sku: &str, name: &str, description: &str| Product {
            sku: sku.into(),
            name: name.into(),
            category: "Tools".into(),
            price_cents: 1,
            weight_g: 1,
            description: description.into(),
        };
        let listed = [
            product("T-1", "Anvil", "Heavier than any hammer."),
            product("T-2", "Claw hammer", "For nails."),
            product("T-3", "Saw", "For wood."),
        ];
        let catalogue = Catalogue(listed.into_iter().map(|p| (p.sku.clone(), p)).collect());
        let find = |query: &str, limit| {
            let page = catalogue.find(&Question { query: Some(query.into()), limit });
            (page.total, page.products.into_iter().map(|p| p.sku).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(find("HAMMER", None), (2, "T-2 T-1".into()));
        assert_eq!(find("hammer nails", None), (1, "T-2".into()));
        assert_eq!(find("t-3", None), (1, "T-3".into()));
        assert_eq!(find("tools", Some(1)), (3, "T-1".into()));
        assert_eq!(find("spoon", None), (0, String::new()));
        assert_eq!(catalogue.find(&Question::default()).total, 3);
    }
}
