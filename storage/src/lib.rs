//! The embedded storage: the door to files ([`disk`]), small files that are kept whole ([`kept`]) and the segmented write-ahead log on it ([`log`]).
//!
//! It knows bytes, not queues; it is synchronous and knows no runtime. It is not a database: no keys, no queries, no compaction of
//! its own. What a record means, and when it may go, is its user's business.

pub mod disk;
pub mod kept;
pub mod log;
