//! What a role keeps on its own disk, so that it works on when others are away: its identity and the last good snapshot.
//!
//! It decides nothing about either: the role asks for them at its start and hands over what is new. Views and the outbox
//! will live here too. It never keeps messages of the broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::snapshot::Snapshot;
use prost::Message as _;
use runtime::identity::Credentials;
use storage::disk::{self, Disk};

/// Largest snapshot that is kept or read, in bytes.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;
/// Largest file of an identity, in bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

const SNAPSHOT_FILE: &str = "snapshot";
const CREDENTIALS_FILE: &str = "identity.pem";
/// First in a kept snapshot's file: what it is and the format's version.
const MAGIC: &[u8; 8] = b"MWSNAP01";
/// Between the parts of a kept identity; PEM never holds it.
const PART: &str = "\n=====\n";

/// A role's own folder.
#[derive(Debug, Clone)]
pub struct Local {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("{path}: {source}", path = path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is damaged: {what}; remove it to start without", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Local {
    /// Opens `dir`, and makes it where it is missing.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        disk.create_dir_all(dir).map_err(|source| Error::Disk { path: dir.to_owned(), source })?;
        Ok(Self { disk, dir: dir.to_owned() })
    }

    /// Keeps a snapshot that was applied; it replaces the one before, whole or not at all.
    ///
    /// # Errors
    /// When the disk says no; the one before then stays.
    pub fn keep_snapshot(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let body = api::control::Snapshot::from(snapshot.clone()).encode_to_vec();
        let mut file = Vec::with_capacity(MAGIC.len() + 4 + body.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        file.extend_from_slice(&body);
        self.write(SNAPSHOT_FILE, &file)
    }

    /// The last good snapshot; `None` where there has been none.
    ///
    /// # Errors
    /// When the disk says no or the file is not what was written.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, Error> {
        let Some(file) = self.read(SNAPSHOT_FILE, SNAPSHOT_BYTES_MAX)? else { return Ok(None) };
        let damaged = |what: String| Error::Damaged { path: self.dir.join(SNAPSHOT_FILE), what };
        let (head, body) =
            file.split_at_checked(MAGIC.len() + 4).ok_or_else(|| damaged("it is too short".to_owned()))?;
        if &head[..MAGIC.len()] != MAGIC {
            return Err(damaged("it does not begin as a snapshot does".to_owned()));
        }
        if head[MAGIC.len()..] != crc32c::crc32c(body).to_le_bytes() {
            return Err(damaged("its checksum does not fit".to_owned()));
        }
        let wire = api::control::Snapshot::decode(body).map_err(|e| damaged(e.to_string()))?;
        Snapshot::try_from(wire).map(Some).map_err(|e| damaged(e.to_string()))
    }

    /// Keeps an identity, readable by its owner alone.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn keep_credentials(&self, credentials: &Credentials) -> Result<(), Error> {
        let parts = [&*credentials.key_pem, &credentials.chain_pem, &credentials.roots_pem];
        let path = self.dir.join(CREDENTIALS_FILE);
        disk::replace(&*self.disk, &path, parts.join(PART).as_bytes()).map_err(|source| Error::Disk { path, source })
    }

    /// The identity that was kept; `None` where there has been none.
    ///
    /// # Errors
    /// When the disk says no or the file is not what was written.
    pub fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let Some(file) = self.read(CREDENTIALS_FILE, PEM_BYTES_MAX)? else { return Ok(None) };
        let damaged =
            || Error::Damaged { path: self.dir.join(CREDENTIALS_FILE), what: "not three parts of PEM".to_owned() };
        let text = String::from_utf8(file).map_err(|_| damaged())?;
        let mut parts = text.split(PART).map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(key_pem), Some(chain_pem), Some(roots_pem), None) => {
                Ok(Some(Credentials { chain_pem, key_pem, roots_pem }))
            }
            _ => Err(damaged()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(name);
        disk::replace(&*self.disk, &path, bytes).map_err(|source| Error::Disk { path, source })
    }

    fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.dir.join(name);
        match disk::read_whole(&*self.disk, &path, bytes_max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Disk { path, source }),
        }
    }
}
