//! `meshwork demo`: the command line of [`crate::demo`].

use std::process::ExitCode;

use super::{Outcome, process};
use crate::demo::{self, Arguments};

pub(super) fn run(arguments: Arguments) -> Outcome {
    runtime::log::start(runtime::log::Format::Text, "error")?;
    let code = process::block_on(|stop| demo::run(arguments, stop))?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
