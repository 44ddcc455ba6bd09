//! What a file in memory holds, what of it is durable, and what a crash makes of the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Random;

/// What a disk writes whole or not at all. Nothing smaller is torn, here as there.
pub const SECTOR_BYTES: u64 = 512;

const PAGE_BYTES: u64 = 4_096;

type Page = [u8; PAGE_BYTES as usize];

/// Bytes of which only the pages that were written take room, so that a preallocated file costs nothing.
#[derive(Debug, Clone, Default)]
struct Content {
    length: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// A file.
#[derive(Debug, Default)]
pub struct File {
    now: Content,
    durable: Content,
    /// The sectors that may differ between the two.
    dirty: BTreeSet<u64>,
    /// How many hold it open: a file without a name lives until the last one lets go.
    pub handles: usize,
}

impl File {
    pub fn length(&self) -> u64 {
        self.now.length
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        self.now.read(buffer, offset)
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        self.now.length = self.now.length.max(end);
        self.now.write(bytes, offset);
        if !bytes.is_empty() {
            self.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    pub fn set_length(&mut self, bytes: u64) {
        for page in self.durable.pages.range(bytes / PAGE_BYTES..).map(|(page, _)| page) {
            let sectors_per_page = PAGE_BYTES / SECTOR_BYTES;
            self.dirty.extend(page * sectors_per_page..(page + 1) * sectors_per_page);
        }
        self.now.set_length(bytes);
    }

    pub fn sync(&mut self) {
        self.durable.length = self.now.length;
        for sector in std::mem::take(&mut self.dirty) {
            let page = sector * SECTOR_BYTES / PAGE_BYTES;
            match self.now.pages.get(&page) {
                Some(bytes) => self.durable.pages.insert(page, bytes.clone()),
                None => self.durable.pages.remove(&page),
            };
        }
    }

    /// Of what was not synced: nothing, everything, the beginning, or any sectors in any order stay.
    pub fn crash(&mut self, random: &mut Random) {
        let dirty: Vec<u64> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (stay, length_stays): (Vec<bool>, bool) = match random.below(4) {
            0 => (vec![false; dirty.len()], false),
            1 => (vec![true; dirty.len()], true),
            2 => {
                let first = random.below(dirty.len() + 1);
                ((0..dirty.len()).map(|index| index < first).collect(), random.below(2) == 0)
            }
            _ => (dirty.iter().map(|_| random.below(2) == 0).collect(), random.below(2) == 0),
        };
        if length_stays {
            self.durable.length = self.now.length;
        }
        for (sector, _) in dirty.into_iter().zip(stay).filter(|(_, stays)| *stays) {
            let mut bytes = [0; SECTOR_BYTES as usize];
            self.now.read_padded(&mut bytes, sector * SECTOR_BYTES);
            self.durable.write(&bytes, sector * SECTOR_BYTES);
        }
        self.durable.set_length(self.durable.length);
        self.now = self.durable.clone();
        self.handles = 0;
    }

    /// Turns one bit over, in what is seen and in what is durable. False: there is no such byte.
    pub fn flip_bit(&mut self, offset: u64, bit: u8) -> bool {
        for content in [&mut self.now, &mut self.durable] {
            let mut byte = [0];
            if content.read(&mut byte, offset) == 1 {
                content.write(&[byte[0] ^ 1 << bit], offset);
            }
        }
        offset < self.now.length
    }
}

impl Content {
    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let length = buffer.len().min(usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX));
        self.read_padded(&mut buffer[..length], offset);
        length
    }

    fn read_padded(&self, buffer: &mut [u8], offset: u64) {
        for (page, within, range) in pieces(buffer.len(), offset) {
            let length = range.len();
            match self.pages.get(&page) {
                Some(bytes) => buffer[range].copy_from_slice(&bytes[within..within + length]),
                None => buffer[range].fill(0),
            }
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, within, range) in pieces(bytes.len(), offset) {
            let length = range.len();
            let bytes = &bytes[range];
            // Zeros over what was never written change nothing.
            if !self.pages.contains_key(&page) && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[within..within + length].copy_from_slice(bytes);
        }
    }

    /// What is cut off is zeros when the file grows again.
    fn set_length(&mut self, bytes: u64) {
        self.length = bytes;
        self.pages.split_off(&bytes.div_ceil(PAGE_BYTES));
        if let Some(page) = self.pages.get_mut(&(bytes / PAGE_BYTES)) {
            Arc::make_mut(page)[in_page(bytes)..].fill(0);
        }
    }
}

/// Cuts a range of a file at its pages: the page, where in it, and which bytes of the range.
fn pieces(length: usize, offset: u64) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == length {
            return None;
        }
        let at = offset + start as u64;
        let within = in_page(at);
        let end = length.min(start + (PAGE_BYTES as usize - within));
        let piece = (at / PAGE_BYTES, within, start..end);
        start = end;
        Some(piece)
    })
}

fn in_page(offset: u64) -> usize {
    // A remainder of a page's size fits.
    (offset % PAGE_BYTES) as usize
}
