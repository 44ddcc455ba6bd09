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
use storage::kept;

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

impl From<kept::Error> for Error {
    fn from(error: kept::Error) -> Self {
        match error {
            kept::Error::Disk { path, source } => Self::Disk { path, source },
            kept::Error::Damaged { path, what } => Self::Damaged { path, what },
        }
    }
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
        kept::write_private(&*self.disk, &path, parts.join(PART).as_bytes())
            .map_err(|source| Error::Disk { path, source })
    }

    /// The identity that was kept; `None` where there has been none.
    ///
    /// # Errors
    /// When the disk says no or the file is not what was written.
    pub fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let path = self.dir.join(CREDENTIALS_FILE);
        let Some(file) = kept::read(&*self.disk, &path, PEM_BYTES_MAX)? else { return Ok(None) };
        let damaged = || Error::Damaged { path: path.clone(), what: "not three parts of PEM".to_owned() };
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

#[cfg(test)]
mod tests {
    use storage::disk::memory::MemoryDisk;

    use super::*;

    fn credentials() -> Credentials {
        let pem = |what: &str| format!("-----BEGIN {what}-----\nMAo=\n-----END {what}-----\n");
        Credentials { chain_pem: pem("CERTIFICATE"), key_pem: pem("PRIVATE KEY"), roots_pem: pem("CERTIFICATE") }
    }

    fn same(one: &Credentials, other: &Credentials) -> bool {
        let of = |it: &Credentials| [it.chain_pem.clone(), it.key_pem.clone(), it.roots_pem.clone()];
        of(one) == of(other)
    }

    /// It was taken up, and failed at the first connection.
    #[test]
    fn an_identity_with_a_turned_bit_or_without_its_end_is_not_taken_up() {
        let disk = MemoryDisk::default();
        let local = Local::open(Arc::new(disk.clone()), Path::new("/role")).unwrap();
        assert!(local.credentials().unwrap().is_none());
        local.keep_credentials(&credentials()).unwrap();
        assert!(same(&local.credentials().unwrap().unwrap(), &credentials()));
        let path = Path::new("/role/identity.pem");
        let whole = disk::read_whole(&disk, path, 10_000).unwrap();
        let content = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for offset in content..whole.len() {
            disk.flip_bit(path, offset, 1);
            assert!(matches!(local.credentials(), Err(Error::Damaged { .. })), "byte {offset}");
            disk.flip_bit(path, offset, 1);
            disk::replace(&disk, path, &whole[..offset]).unwrap();
            assert!(matches!(local.credentials(), Err(Error::Damaged { .. })), "cut to {offset}");
            disk::replace(&disk, path, &whole).unwrap();
        }
        // An earlier release wrote it without a checksum.
        disk::replace(&disk, path, &whole[content..]).unwrap();
        assert!(same(&local.credentials().unwrap().unwrap(), &credentials()));
    }
}
