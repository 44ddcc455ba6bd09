//! Bytes as records. What the engine gives back has passed its checksum; so an error here means a record that a later
//! Meshwork wrote, or a mistake of ours, and never a damaged disk.

use model::identity::Subject;
use model::name::Name;
use model::position::Position;
use policy::schedule::Attempts;

use super::write::{
    AGAIN, ASSIGNED, ASSIGNED_UNFENCED, CARRIED, CHECKPOINT, DEAD, FORGOTTEN, PAUSED, PUBLISHED, REDRIVEN, SETTLED,
    SOUGHT, SUBSCRIBED,
};
use super::{Destination, Group, Identity, Published, Record};

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They end too early.
    #[error("the record ends too early")]
    Short,
    /// The tag is not known.
    #[error("the record's tag {0} is not known to this version")]
    Tag(u8),
    /// A field holds what it cannot hold.
    #[error("the record's field {0:?} is not valid")]
    Field(&'static str),
}

impl Record {
    /// Reads a record, and answers with what stands behind it: the event, where it has one.
    ///
    /// # Errors
    /// When the bytes are not a record of version 1.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let mut from = Cursor(bytes);
        let record = match from.byte()? {
            PUBLISHED => Self::Published(from.published()?),
            CARRIED => Self::Carried { position: from.position()?, published: from.published()? },
            ASSIGNED => Self::Assigned {
                group: from.group()?,
                consumer: from.name()?,
                fence: from.number()?,
                messages: from.messages()?,
            },
            ASSIGNED_UNFENCED => {
                Self::Assigned { group: from.group()?, consumer: from.name()?, fence: 0, messages: from.messages()? }
            }
            SETTLED => Self::Settled { group: from.group()?, positions: from.positions()? },
            REDRIVEN => Self::Redriven { group: from.group()?, positions: from.positions()? },
            FORGOTTEN => Self::Forgotten { group: from.group()?, positions: from.positions()? },
            AGAIN => Self::Again {
                group: from.group()?,
                position: from.position()?,
                attempts: from.attempts()?,
                due_ms: from.number()?,
            },
            DEAD => Self::Dead {
                group: from.group()?,
                position: from.position()?,
                attempts: from.attempts()?,
                reason: from.text()?.to_owned(),
                died_ms: from.number()?,
            },
            SUBSCRIBED => Self::Subscribed { topic: from.name()?, name: from.name()?, from: from.position()? },
            SOUGHT => Self::Sought { topic: from.name()?, name: from.name()?, to: from.position()? },
            PAUSED => Self::Paused { topic: from.name()?, name: from.name()?, paused: from.number()? != 0 },
            CHECKPOINT => {
                let (part, last) = (from.number()?, from.byte()? != 0);
                let part = u32::try_from(part).map_err(|_| Error::Field("part"))?;
                Self::Checkpoint { part, last, bytes: std::mem::take(&mut from.0).to_vec() }
            }
            tag => return Err(Error::Tag(tag)),
        };
        Ok((record, from.0))
    }
}

/// What is left to read.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn byte(&mut self) -> Result<u8, Error> {
        let (first, rest) = self.0.split_first().ok_or(Error::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Field("number"))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Error::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn count(&mut self) -> Result<usize, Error> {
        let count = usize::try_from(self.number()?).map_err(|_| Error::Field("count"))?;
        // Each item takes a byte at least, so a count beyond that is wrong and reserves nothing.
        if count > self.0.len() { Err(Error::Short) } else { Ok(count) }
    }

    pub fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Error::Short)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Error::Field("text"))
    }

    pub fn name(&mut self) -> Result<Name, Error> {
        Name::new(self.text()?).map_err(|_| Error::Field("name"))
    }

    pub fn position(&mut self) -> Result<Position, Error> {
        self.number().map(Position)
    }

    pub fn attempts(&mut self) -> Result<Attempts, Error> {
        let mut count = || u32::try_from(self.number()?).map_err(|_| Error::Field("attempts"));
        Ok(Attempts { assigned: count()?, failed: count()? })
    }

    pub fn option(&mut self) -> Result<Option<u64>, Error> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.number().map(Some),
            _ => Err(Error::Field("option")),
        }
    }

    pub fn group(&mut self) -> Result<Group, Error> {
        match self.byte()? {
            0 => Ok(Group::Queue(self.name()?)),
            1 => Ok(Group::Subscription { topic: self.name()?, name: self.name()? }),
            _ => Err(Error::Field("group")),
        }
    }

    pub fn subject(&mut self) -> Result<Subject, Error> {
        match self.byte()? {
            0 => Ok(Subject::Service(self.name()?)),
            1 => Ok(Subject::Gateway(self.name()?)),
            2 => Ok(Subject::Broker),
            3 => Ok(Subject::ControlPlane),
            _ => Err(Error::Field("subject")),
        }
    }

    pub fn identity(&mut self) -> Result<Identity, Error> {
        let id = u128::from_le_bytes(self.bytes()?);
        Ok(Identity { id, check: u32::from_le_bytes(self.bytes()?) })
    }

    pub fn published(&mut self) -> Result<Published, Error> {
        let destination = match self.byte()? {
            0 => Destination::Queue(self.name()?),
            1 => Destination::Topic(self.name()?),
            _ => return Err(Error::Field("destination")),
        };
        Ok(Published {
            destination,
            publisher: self.subject()?,
            published_ms: self.number()?,
            expires_ms: self.option()?,
            key: self.option()?,
            identity: match self.byte()? {
                0 => None,
                1 => Some(self.identity()?),
                _ => return Err(Error::Field("identity")),
            },
        })
    }

    fn messages(&mut self) -> Result<Vec<(Position, Attempts)>, Error> {
        (0..self.count()?).map(|_| Ok((self.position()?, self.attempts()?))).collect()
    }

    fn positions(&mut self) -> Result<Vec<Position>, Error> {
        (0..self.count()?).map(|_| self.position()).collect()
    }
}
