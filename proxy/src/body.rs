//! Bodies on their way through: a request's ([`Sent`]) and a response's ([`Answered`]).
//!
//! Both are enums of the few kinds that occur, so a body that is only passed on costs no box. Bounds are held here, not
//! judged: what a body that broke its bound is answered with, is `refusal`'s.

mod answered;
mod held;
mod replay;
mod sent;

pub(crate) use answered::Answered;
pub(crate) use held::{Expectation, Held, hold};
pub(crate) use replay::Replay;
pub(crate) use sent::{Sent, Source, taken};
