//! `meshwork rollback`: publishes what an earlier revision held as a new one.

use anyhow::Context as _;

use super::{Outcome, admin, publish};

const EXAMPLES: &str = "\
Examples:
  meshwork rollback                 to the revision before the one in force
  meshwork rollback 3
  meshwork diff --revision 3        what it would change

A mesh file that `meshwork up` watches is not written to: it is applied again when it changes.
Exit code: as `meshwork apply`; 1 also when the revision is not kept.";

/// Take a change back: an earlier revision's content is published as a new revision
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The earlier revision, as `meshwork history` lists it [default: the one before]
    revision: Option<u64>,
    #[command(flatten)]
    publish: publish::Arguments,
    #[command(flatten)]
    admin: admin::Arguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let operator = arguments.admin.find(None, None)?;
    admin::ask(async {
        let to = match arguments.revision {
            Some(number) => number,
            None => {
                let (kept, current) = (operator.kept().await?, operator.in_force().await?);
                let before = kept.iter().map(|kept| kept.revision).filter(|number| *number < current).max();
                before.context("there is no earlier revision")?
            }
        };
        let preview = operator.preview_rollback(to).await?;
        let roll_back = async |from| operator.roll_back(to, from).await;
        publish::publish(&arguments.publish, &operator, preview, roll_back).await
    })
}
