//! What customers ask for: as written, then as proven.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::problem::{self, Problem};

const CUSTOMER_CHARS_MAX: usize = 200;
const LINES_MAX: usize = 50;
const QUANTITY_MAX: u32 = 1_000;
const SKU_CHARS_MAX: usize = 40;

/// An order as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// Whose it is.
    pub customer: String,
    /// What is wanted.
    pub lines: Vec<Wanted>,
}

/// A line of an order as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Which product.
    pub sku: String,
    /// How many.
    pub quantity: u32,
}

impl OrderRequest {
    /// The order, if it can be one. Whether the products exist is the catalogue's to say.
    ///
    /// # Errors
    /// 422 that says what is wrong with it.
    pub fn proven(self) -> problem::Result<Self> {
        let refuse =
            |detail: String| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "this cannot be ordered", detail));
        if self.customer.trim().is_empty() || self.customer.chars().count() > CUSTOMER_CHARS_MAX {
            return refuse(format!("`customer` has 1 to {CUSTOMER_CHARS_MAX} characters"));
        }
        if self.lines.is_empty() || self.lines.len() > LINES_MAX {
            return refuse(format!("`lines` has 1 to {LINES_MAX} lines"));
        }
        let mut seen = BTreeSet::new();
        for Wanted { sku, quantity } in &self.lines {
            if sku.is_empty()
                || sku.len() > SKU_CHARS_MAX
                || !sku.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            {
                return refuse(format!("`{}` is no sku", sku.escape_debug()));
            }
            if !(1..=QUANTITY_MAX).contains(quantity) {
                return refuse(format!("{quantity} of {sku}; from 1 to {QUANTITY_MAX} can be ordered"));
            }
            if !seen.insert(sku) {
                return refuse(format!("{sku} stands in two lines"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(sku: &str, quantity: u32) -> Wanted {
        Wanted { sku: sku.into(), quantity }
    }

    fn refusal(customer: &str, lines: &[Wanted]) -> Option<String> {
        let request = OrderRequest { customer: customer.into(), lines: lines.to_vec() };
        request.proven().err().map(|problem| problem.detail)
    }

    #[test]
    fn says_what_cannot_be_ordered() {
        assert_eq!(refusal("Ada", &[wanted("HT-1001", 1), wanted("HT-1002", 1_000)]), None);
        for (customer, lines, said) in [
            (" ", &[wanted("A", 1)][..], "`customer`"),
            ("Ada", &[], "`lines`"),
            ("Ada", &vec![wanted("A", 1); 51], "`lines`"),
            ("Ada", &[wanted("../orders", 1)], "no sku"),
            ("Ada", &[wanted("A", 0)], "0 of A"),
            ("Ada", &[wanted("A", 1_001)], "1001 of A"),
            ("Ada", &[wanted("A", 1), wanted("A", 2)], "two lines"),
        ] {
            let refusal = refusal(customer, lines).unwrap();
            assert!(refusal.contains(said), "{refusal} does not say {said}");
        }
    }
}
