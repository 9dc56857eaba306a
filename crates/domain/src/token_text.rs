//! The text of tokens that tell how far somebody has come: numbers in hex, and a checksum.

use crate::hex;

/// Longest token that is looked at.
const TEXT_BYTES_MAX: usize = 128;

/// Writes `<version>_<number>_…_<CRC-32>`, each number in hex.
pub(crate) fn write(version: &str, numbers: &[u64]) -> String {
    let mut text = Vec::with_capacity(TEXT_BYTES_MAX);
    text.extend_from_slice(version.as_bytes());
    for number in numbers {
        text.push(b'_');
        hex::push(&mut text, *number);
    }
    let checksum = hex::checksum(&text);
    text.push(b'_');
    text.extend_from_slice(&checksum);
    String::from_utf8(text).expect("versions and digits are ASCII")
}

/// Reads what [`write()`] wrote, and nothing else.
pub(crate) fn read<const N: usize>(version: &str, text: &str) -> Option<[u64; N]> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (body, checksum) = text.rsplit_once('_')?;
    let mut fields = body.as_bytes().split(|byte| *byte == b'_');
    let is_known = fields.next()? == version.as_bytes();
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = hex::read(fields.next()?)?;
    }
    let is_whole = fields.next().is_none();
    let is_intact = checksum.as_bytes() == hex::checksum(body.as_bytes());
    (is_known && is_whole && is_intact).then_some(numbers)
}
