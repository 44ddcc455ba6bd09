//! `meshwork token`: makes what a role shows to get its first certificate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use control::token::{self, Secret};
use model::identity::Subject;
use model::name::Name;
use storage::disk::real::RealDisk;
use storage::kept;

use super::Outcome;

/// Longest file of a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 1 << 10;

const EXAMPLES: &str = "\
Examples:
  meshwork token --secret token.secret --subject service/orders --instance orders-0 > orders-0.token
  meshwork token --secret token.secret --subject broker --instance broker --life 5m > broker.token

The control plane must have the same secret: `meshwork control-plane --token-secret token.secret …`.
`meshwork up` makes the tokens of the roles that it starts.";

/// Make a token for a role that is started by hand
///
/// It holds for one subject, until it expires: whoever has it can take that identity until then. The instance is for the control
/// plane's log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What tokens are made with; made when it is not there
    #[arg(long, env = "MESHWORK_TOKEN_SECRET", value_name = "FILE")]
    secret: PathBuf,
    /// Who the role will be: service/NAME, gateway/NAME or broker
    #[arg(long, value_name = "SUBJECT")]
    subject: Subject,
    /// The instance that it is made for
    #[arg(long, value_name = "NAME")]
    instance: Name,
    /// How long it holds
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = model::unit::duration)]
    life: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let secret = secret(&arguments.secret)?;
    let expires_s = runtime::clock::wall_s().saturating_add(arguments.life.as_secs());
    println!("{}", token::mint(&secret, &arguments.subject, &arguments.instance, expires_s));
    Ok(ExitCode::SUCCESS)
}

/// Reads the secret; makes one, readable by its owner alone, where there is none.
pub(crate) fn secret(path: &Path) -> anyhow::Result<Secret> {
    let found = kept::read(&RealDisk, path, SECRET_BYTES_MAX).context("cannot read the token secret")?;
    if let Some(bytes) = found {
        let text = String::from_utf8_lossy(&bytes);
        return Secret::from_text(&text).with_context(|| format!("{} holds no token secret", path.display()));
    }
    let secret = Secret::generate()?;
    kept::write_private(&RealDisk, path, secret.to_text().as_bytes())
        .with_context(|| format!("cannot write a token secret to {}", path.display()))?;
    tracing::info!(path = %path.display(), "a new token secret was made, since there is none; tokens of an earlier one are refused");
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use storage::disk;

    use super::*;

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.secret");
        let made = secret(&path).unwrap();
        assert_eq!(secret(&path).unwrap(), made);
        disk::replace(&RealDisk, &path, made.to_text().as_bytes()).unwrap();
        assert_eq!(
            secret(&path).unwrap(),
            made,
            "one that was written by hand, or by an earlier release, has no checksum"
        );
        kept::write_private(&RealDisk, &path, made.to_text().as_bytes()).unwrap();
        let mut turned = disk::read_whole(&RealDisk, &path, 1_000).unwrap();
        *turned.last_mut().unwrap() ^= 1;
        for (content, why) in [(&turned[..], "damaged"), (b"short", "no token secret")] {
            disk::replace(&RealDisk, &path, content).unwrap();
            let error = format!("{:#}", secret(&path).unwrap_err());
            assert!(error.contains("token.secret") && error.contains(why), "{error}");
        }
    }
}
