//! The bytes of a record and of a segment's head, format version 2, little-endian.
//!
//! ```text
//! segment:  magic "MWLOG002" · log id u64 · first sequence u64 · made bytes u64 · end u64 · next sequence u64
//!           · CRC-32C of these 48 bytes u32 · zeros up to byte 512
//! frame:    CRC-32C of the head's rest and the log id u32 · CRC-32C of the body u32 · length u32 · zero u32
//!           · sequence u64 · synced through u64                                     (the head, 32 bytes)
//!           · payload · 1 to 8 bytes of 0x5A, up to a multiple of 8                 (the body)
//! ```
//!
//! `synced through` says which records were synced when this one was appended, and the last byte of a frame is never zero. Recovery
//! tells by them what was acknowledged from what a crash tore (see `recover`). The head has a checksum of its own, so that a frame's length can be
//! trusted where its body cannot. The log's id is in every checksum: a record that holds the bytes of a frame is not taken for one.
//!
//! A segment's head is written twice, whole each time: when it is made, with zeros for its end, and when it is sealed, since another
//! segment follows it. So a file that has lost its end, or its successor, is known. Version 1 ("MWLOG001") says neither: its checksum stands
//! behind the first sequence. It is read as before, and never written.

/// Where a segment's first frame begins: behind the head's sector, which no later write touches.
pub const SEGMENT_HEADER_BYTES: usize = 512;
/// A frame without its body.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this.
pub const ALIGNMENT: usize = 8;

const MAGIC: &[u8; 8] = b"MWLOG002";
const MAGIC_1: &[u8; 8] = b"MWLOG001";
/// What of a segment's head its checksum is of; the checksum stands behind it.
const SEGMENT_HEADER_CHECKED_BYTES: usize = 48;
const SEGMENT_HEADER_CHECKED_BYTES_1: usize = 24;
const PADDING: u8 = 0x5a;

/// What a frame's head says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its record's sequence.
    pub sequence: u64,
    /// Everything before it was synced when this was appended.
    pub synced_through: u64,
    /// The record's length.
    pub length: usize,
    body_crc: u32,
}

/// How many bytes a record's frame has.
#[must_use]
pub const fn bytes(length: usize) -> usize {
    (FRAME_HEADER_BYTES + length + ALIGNMENT) / ALIGNMENT * ALIGNMENT
}

/// Writes a frame. The record's length must be below 4 GiB.
pub fn write(buffer: &mut Vec<u8>, log_id: u64, sequence: u64, synced_through: u64, record: &[&[u8]]) {
    let start = buffer.len();
    let length: usize = record.iter().map(|part| part.len()).sum();
    let end = start + bytes(length);
    buffer.reserve(bytes(length));
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    for part in record {
        buffer.extend_from_slice(part);
    }
    buffer.resize(end, PADDING);
    let (head, body) = buffer[start..].split_at_mut(FRAME_HEADER_BYTES);
    head[4..8].copy_from_slice(&checksum(log_id, body).to_le_bytes());
    head[8..12].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    head[16..24].copy_from_slice(&sequence.to_le_bytes());
    head[24..32].copy_from_slice(&synced_through.to_le_bytes());
    let crc = checksum(log_id, &head[4..]);
    head[..4].copy_from_slice(&crc.to_le_bytes());
}

impl Head {
    /// Reads the head that begins `bytes`; `None`: there is none.
    #[must_use]
    pub fn read(bytes: &[u8], log_id: u64) -> Option<Self> {
        let head = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let sequence = u64::from_le_bytes(field(head, 16));
        // A frame is never all zeros, and room that was taken is, before it is written; sequences begin at 1.
        if sequence == 0 || checksum(log_id, &head[4..]) != u32::from_le_bytes(field(head, 0)) {
            return None;
        }
        Some(Self {
            sequence,
            synced_through: u64::from_le_bytes(field(head, 24)),
            length: u32::from_le_bytes(field(head, 8)) as usize,
            body_crc: u32::from_le_bytes(field(head, 4)),
        })
    }

    /// The record in the frame that begins `bytes`; `None`: it is not what was written.
    #[must_use]
    pub fn payload<'a>(&self, frame: &'a [u8], log_id: u64) -> Option<&'a [u8]> {
        let body = frame.get(FRAME_HEADER_BYTES..bytes(self.length))?;
        (checksum(log_id, body) == self.body_crc).then(|| &body[..self.length])
    }
}

/// The sequence that a frame's head claims, unchecked.
#[must_use]
pub fn claimed_sequence(head: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*head.get(16..24)?.first_chunk()?))
}

/// What a segment's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// Which log it belongs to.
    pub log_id: u64,
    /// Its first record.
    pub first_sequence: u64,
    /// How long its file was made, in bytes; 0: an earlier version made it and did not say.
    pub made_bytes: u64,
    /// Said once another segment follows it.
    pub seal: Option<Seal>,
}

/// Where a segment ends that others follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Where its last frame ends; its file ends there too.
    pub end: u64,
    /// The sequence after its last record's: the next segment's first.
    pub next_sequence: u64,
}

impl SegmentHead {
    /// The bytes of the head.
    #[must_use]
    pub fn write(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let (end, next_sequence) = self.seal.map_or((0, 0), |seal| (seal.end, seal.next_sequence));
        let mut head = [0; SEGMENT_HEADER_BYTES];
        head[..8].copy_from_slice(MAGIC);
        let numbers = [self.log_id, self.first_sequence, self.made_bytes, end, next_sequence];
        for (place, number) in head[8..SEGMENT_HEADER_CHECKED_BYTES].chunks_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&head[..SEGMENT_HEADER_CHECKED_BYTES]);
        head[SEGMENT_HEADER_CHECKED_BYTES..SEGMENT_HEADER_CHECKED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Reads a segment's head, of this version or the one before.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(head: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, &'static str> {
        if &head[..6] != b"MWLOG0" {
            return Err("it does not begin as a segment of a log does");
        }
        let checked_bytes = match head.first_chunk() {
            Some(MAGIC) => SEGMENT_HEADER_CHECKED_BYTES,
            Some(MAGIC_1) => SEGMENT_HEADER_CHECKED_BYTES_1,
            _ => return Err("it is of a format version that is not known here"),
        };
        let (checked, rest) = head.split_at(checked_bytes);
        if crc32c::crc32c(checked) != u32::from_le_bytes(field(head, checked_bytes)) {
            return Err("the checksum of its head does not fit");
        }
        if rest[4..].iter().any(|byte| *byte != 0) {
            return Err("there is something behind its head where nothing is written");
        }
        let number = |at: usize| if at < checked_bytes { u64::from_le_bytes(field(head, at)) } else { 0 };
        let seal = Seal { end: number(32), next_sequence: number(40) };
        Ok(Self {
            log_id: number(8),
            first_sequence: number(16),
            made_bytes: number(24),
            seal: (seal.end > 0).then_some(seal),
        })
    }
}

fn checksum(log_id: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&log_id.to_le_bytes()), bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_no_bit_of_it_may_turn() {
        let read = |bytes: &[u8], id| {
            Head::read(bytes, id).and_then(|head| Some((head.sequence, head.payload(bytes, id)?.to_vec())))
        };
        for length in 0..20 {
            let record: Vec<u8> = (0..length).collect();
            let mut frame = Vec::new();
            write(&mut frame, 7, 42, 40, &[&record[..record.len() / 2], &record[record.len() / 2..]]);
            assert_eq!(frame.len(), bytes(record.len()));
            assert_eq!((frame.len() % ALIGNMENT, frame.last()), (0, Some(&PADDING)));
            assert_eq!(read(&frame, 7), Some((42, record)));
            assert_eq!(read(&frame, 8), None, "another log's frame");
            for bit in 0..frame.len() * 8 {
                let mut turned = frame.clone();
                turned[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&turned, 7), None, "bit {bit}");
            }
        }
        assert_eq!(read(&[0; 64], 7), None);
    }

    #[test]
    fn a_segments_head_reads_back_and_no_bit_of_it_may_turn() {
        for seal in [None, Some(Seal { end: 600, next_sequence: 20 })] {
            let head = SegmentHead { log_id: 7, first_sequence: 17, made_bytes: 4_000, seal };
            let bytes = head.write();
            assert_eq!(SegmentHead::read(&bytes), Ok(head));
            for bit in 0..bytes.len() * 8 {
                let mut turned = bytes;
                turned[bit / 8] ^= 1 << (bit % 8);
                assert!(SegmentHead::read(&turned).is_err(), "bit {bit}");
            }
        }
    }
}
