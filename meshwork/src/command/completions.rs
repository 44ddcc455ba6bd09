//! `meshwork completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Outcome;

const EXAMPLES: &str = "\
Examples:
  meshwork completions bash > ~/.local/share/bash-completion/completions/meshwork
  meshwork completions zsh > ~/.zfunc/_meshwork
  meshwork completions fish > ~/.config/fish/completions/meshwork.fish";

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "meshwork", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
