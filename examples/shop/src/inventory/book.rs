//! What the ledger of the warehouse comes to: free and reserved units by product.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ledger;

/// The stock of the first day: sku → units.
const OPENING_STOCK: &str = include_str!("../../data/stock.json");

/// Units by product.
pub type Items = BTreeMap<String, u64>;

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// Set aside for an order.
    Reserved { order_id: String, items: Items },
    /// Put back.
    Released { order_id: String },
    /// Taken in.
    Restocked { items: Items },
}

/// The units of one product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Units {
    /// For anybody.
    pub free: u64,
    /// Set aside for orders.
    pub reserved: u64,
}

/// The warehouse.
#[derive(Debug)]
pub struct Book {
    units: BTreeMap<String, Units>,
    reservations: BTreeMap<String, Items>,
}

/// Why nothing could be set aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// There never was any.
    #[error("the warehouse does not hold {0}")]
    Unknown(String),
    /// There is too little.
    #[error("{wanted} of {sku} are wanted and {free} are there")]
    TooFew {
        /// Of which.
        sku: String,
        /// How many are needed.
        wanted: u64,
        /// How many there are.
        free: u64,
    },
}

impl Default for Book {
    fn default() -> Self {
        // The file is part of the program, and a test reads it.
        let stock: Items = serde_json::from_str(OPENING_STOCK).unwrap_or_default();
        let units = stock.into_iter().map(|(sku, free)| (sku, Units { free, reserved: 0 }));
        Self { units: units.collect(), reservations: BTreeMap::new() }
    }
}

impl ledger::Book for Book {
    type Entry = Entry;

    fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Reserved { order_id, items } => {
                for (sku, quantity) in &items {
                    let units = self.units.entry(sku.clone()).or_default();
                    units.free = units.free.saturating_sub(*quantity);
                    units.reserved += quantity;
                }
                self.reservations.insert(order_id, items);
            }
            Entry::Released { order_id } => {
                for (sku, quantity) in self.reservations.remove(&order_id).unwrap_or_default() {
                    let units = self.units.entry(sku).or_default();
                    units.free += quantity;
                    units.reserved = units.reserved.saturating_sub(quantity);
                }
            }
            Entry::Restocked { items } => {
                for (sku, quantity) in items {
                    self.units.entry(sku).or_default().free += quantity;
                }
            }
        }
    }
}

impl Book {
    /// The units of a product, if the warehouse holds it.
    pub fn units(&self, sku: &str) -> Option<Units> {
        self.units.get(sku).copied()
    }

    /// What is set aside for an order.
    pub fn reservation(&self, order_id: &str) -> Option<&Items> {
        self.reservations.get(order_id)
    }

    /// Whether all of the items are there.
    ///
    /// # Errors
    /// The first that is not.
    pub fn suffice(&self, items: &Items) -> Result<(), Shortage> {
        for (sku, wanted) in items {
            let Units { free, .. } = self.units(sku).ok_or_else(|| Shortage::Unknown(sku.clone()))?;
            if free < *wanted {
                return Err(Shortage::TooFew { sku: sku.clone(), wanted: *wanted, free });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Book as _;

    const SKU: &str = "HT-1001";

    fn items(quantity: u64) -> Items {
        Items::from([(SKU.to_owned(), quantity)])
    }

    #[test]
    fn the_warehouse_holds_what_the_catalogue_sells() {
        let sold: Vec<crate::catalog::Product> =
            serde_json::from_str(include_str!("../../data/catalogue.json")).unwrap();
        let book = Book::default();
        for product in &sold {
            assert!(book.units(&product.sku).is_some_and(|units| units.free > 0), "{}", product.sku);
        }
        assert_eq!(book.units.len(), sold.len());
    }

    #[test]
    fn units_are_set_aside_and_put_back() {
        let mut book = Book::default();
        let opening = book.units(SKU).unwrap();
        book.enter(Entry::Reserved { order_id: "ord-1".into(), items: items(7) });
        assert_eq!(book.units(SKU).unwrap(), Units { free: opening.free - 7, reserved: 7 });
        assert_eq!(book.reservation("ord-1"), Some(&items(7)));
        for _ in 0..2 {
            book.enter(Entry::Released { order_id: "ord-1".into() });
            assert_eq!(book.units(SKU).unwrap(), opening);
        }
        book.enter(Entry::Restocked { items: items(5) });
        assert_eq!(book.units(SKU).unwrap().free, opening.free + 5);
    }

    #[test]
    fn says_what_is_short() {
        let book = Book::default();
        let Units { free, .. } = book.units(SKU).unwrap();
        assert_eq!(book.suffice(&items(free)), Ok(()));
        let few = Shortage::TooFew { sku: SKU.into(), wanted: free + 1, free };
        assert_eq!(book.suffice(&items(free + 1)), Err(few));
        let unknown = Items::from([("XX-1".to_owned(), 1)]);
        assert_eq!(book.suffice(&unknown), Err(Shortage::Unknown("XX-1".into())));
    }
}
