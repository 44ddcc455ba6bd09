//! The tokens of the roles that `up` runs: each has one in its file that holds, for as long as it is supervised.
//!
//! A role shows a token when it starts for the first time, and when its certificate ended so long ago that it cannot be renewed.
//! When that is nobody knows, so a token is replaced in the middle of its life. What is due is read off the clock: timers stand
//! still while a machine is suspended, and the clock does not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use control::token::{self, Secret};
use model::identity::Subject;
use model::name::Name;
use runtime::clock;

use super::folder::Folder;

/// How long a token holds.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// The longest time between two looks at the clock; for so long after a suspension a role may find a token that has ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Makes the tokens of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) secret: Secret,
    pub(crate) folder: Arc<Folder>,
    pub(crate) subject: Subject,
    pub(crate) instance: Name,
    /// [`TOKEN_LIFE`].
    pub(crate) life: Duration,
}

impl Tokens {
    /// Puts a fresh token into the instance's file. Answers when it ends, in seconds since 1970.
    ///
    /// # Errors
    /// As the disk says; the one before then stays.
    pub(crate) fn write(&self) -> std::io::Result<u64> {
        let expires_s = clock::wall_s().saturating_add(self.life.as_secs());
        self.folder
            .write_token(&self.instance, &token::mint(&self.secret, &self.subject, &self.instance, expires_s))?;
        Ok(expires_s)
    }

    /// Keeps a token in the file that holds for half of its life at the least.
    pub(crate) async fn keep_fresh(self) -> Infallible {
        let mut due_s = 0;
        let mut failing = false;
        loop {
            if clock::wall_s() >= due_s {
                match self.write() {
                    Ok(expires_s) => (due_s, failing) = (expires_s - self.life.as_secs() / 2, false),
                    Err(error) if !std::mem::replace(&mut failing, true) => {
                        tracing::warn!(instance = %self.instance, %error, "a token could not be written; trying again");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(LOOK_INTERVAL.min(self.life / 4)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use storage::disk::{self, real::RealDisk};

    use super::*;

    #[tokio::test]
    async fn the_token_in_the_file_holds_at_any_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::take(root.path()).unwrap());
        let (secret, instance) = (Secret::generate().unwrap(), Name::new("orders-0").unwrap());
        let (subject, life) = (Subject::Service(Name::new("orders").unwrap()), Duration::from_secs(4));
        let tokens =
            Tokens { secret: secret.clone(), folder: folder.clone(), subject, instance: instance.clone(), life };
        let began_s = clock::wall_s();
        let looking = async {
            while clock::wall_s() <= began_s + life.as_secs() {
                // The first is written before anything is looked at.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let text = disk::read_whole(&RealDisk, &folder.token_file(&instance), 1_024).unwrap();
                let claims = token::verify(&secret, &String::from_utf8(text).unwrap(), clock::wall_s()).unwrap();
                assert_eq!(claims.instance, instance);
            }
        };
        tokio::select! {
            biased;
            never = tokens.keep_fresh() => match never {},
            () = looking => {}
        }
    }
}
