//! The arguments that say what a role logs, and how.

use clap::ValueEnum;

/// What is logged, to standard error.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Output")]
#[group(skip)]
pub(crate) struct Arguments {
    /// error, warn, info, debug or trace; or by part, such as warn,proxy=debug
    #[arg(long, env = "MESHWORK_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    /// How a line looks
    #[arg(long, env = "MESHWORK_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl Arguments {
    /// Starts to log.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let format = match self.log_format {
            Format::Text => runtime::log::Format::Text,
            Format::Json => runtime::log::Format::Json,
        };
        Ok(runtime::log::start(format, &self.log_level)?)
    }
}
