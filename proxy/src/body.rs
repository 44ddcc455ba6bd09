//! Bodies on their way through: a request's ([`RequestBody`]) and a response's ([`ResponseBody`]).
//!
//! Both are enums of the few kinds that occur, so a body that is only passed on costs no box. Bounds are held here, not
//! judged: what a body that broke its bound is answered with, is `refusal`'s.

mod held;
mod replay;
mod request;
mod response;

pub(crate) use held::{Expectation, Held, hold};
pub(crate) use replay::Replay;
pub(crate) use request::{RequestBody, Source, taken};
pub(crate) use response::ResponseBody;
