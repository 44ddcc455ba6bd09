//! The bytes of a record and of a segment's head, format version 1, little-endian.
//!
//! ```text
//! segment:  magic "MWLOG001" · log id u64 · first sequence u64 · CRC-32C of these 24 bytes u32 · zero u32
//! frame:    CRC-32C of the rest and the log id u32 · length u32 · sequence u64 · synced through u64 · payload
//! ```
//!
//! `synced through` says which records were synced when this one was appended. So at recovery a good frame behind a bad one tells
//! the two cases apart: had the bad one been synced before the good one was written, it was acknowledged and is damaged; otherwise both
//! belong to one unsynced write, whose pages a disk may put down in any order, and both are a torn tail.

/// A segment's head.
pub const SEGMENT_HEADER_BYTES: usize = 32;
/// A frame without its payload.
pub const FRAME_HEADER_BYTES: usize = 24;

const MAGIC: &[u8; 8] = b"MWLOG001";

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its record's sequence.
    pub sequence: u64,
    /// Everything before it was synced when this was appended.
    pub synced_through: u64,
    /// The record.
    pub payload: &'a [u8],
}

/// Writes a frame.
pub fn write(buffer: &mut Vec<u8>, log_id: u64, sequence: u64, synced_through: u64, record: &[&[u8]]) {
    let start = buffer.len();
    let length: usize = record.iter().map(|part| part.len()).sum();
    buffer.reserve(FRAME_HEADER_BYTES + length);
    buffer.extend_from_slice(&[0; 4]);
    // A record's bound is far below 4 GiB.
    buffer.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&synced_through.to_le_bytes());
    for part in record {
        buffer.extend_from_slice(part);
    }
    let crc = checksum(log_id, &buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame at the beginning of `bytes`; `None` where there is no good one.
#[must_use]
pub fn read(bytes: &[u8], log_id: u64) -> Option<Frame<'_>> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEADER_BYTES)?;
    let length = u32::from_le_bytes(field(head, 4)) as usize;
    let payload = rest.get(..length)?;
    let sequence = u64::from_le_bytes(field(head, 8));
    // Zeros are what a segment is made of before it is written; sequences begin at 1.
    if sequence == 0 || checksum(log_id, &bytes[4..FRAME_HEADER_BYTES + length]) != u32::from_le_bytes(field(head, 0)) {
        return None;
    }
    Some(Frame { sequence, synced_through: u64::from_le_bytes(field(head, 16)), payload })
}

/// The length and sequence that a frame's head claims, unchecked.
#[must_use]
pub fn claim(head: &[u8]) -> Option<(usize, u64)> {
    let head = head.get(..FRAME_HEADER_BYTES)?;
    Some((u32::from_le_bytes(field(head, 4)) as usize, u64::from_le_bytes(field(head, 8))))
}

/// Writes a segment's head.
#[must_use]
pub fn segment_header(log_id: u64, first_sequence: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut head = [0; SEGMENT_HEADER_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&log_id.to_le_bytes());
    head[16..24].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c(&head[..24]);
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Reads a segment's head: the log's id and the first sequence.
///
/// # Errors
/// What is wrong with it.
pub fn read_segment_header(head: &[u8; SEGMENT_HEADER_BYTES]) -> Result<(u64, u64), &'static str> {
    if &head[..6] != b"MWLOG0" {
        return Err("it does not begin as a segment of a log does");
    }
    if &head[..8] != MAGIC {
        return Err("it is of a format version that is not known here");
    }
    if crc32c::crc32c(&head[..24]) != u32::from_le_bytes(field(head, 24)) {
        return Err("the checksum of its head does not fit");
    }
    Ok((u64::from_le_bytes(field(head, 8)), u64::from_le_bytes(field(head, 16))))
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
        let mut bytes = Vec::new();
        write(&mut bytes, 7, 42, 40, &[b"he", b"llo"]);
        assert_eq!(read(&bytes, 7), Some(Frame { sequence: 42, synced_through: 40, payload: b"hello" }));
        assert_eq!(read(&bytes, 8), None, "another log's frame");
        for bit in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&turned, 7), None, "bit {bit}");
        }
        assert_eq!(read(&[0; 64], 7), None);
    }
}
