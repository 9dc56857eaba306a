//! The text of tokens that tell how far somebody has come: numbers in hex, and a checksum.

use crate::hex;

/// Longest token that is looked at.
const TEXT_BYTES_MAX: usize = 128;

/// Writes `<version>_<number>_…_<CRC-32>`, each number in hex.
pub(crate) fn write(version: &str, numbers: &[u64]) -> String {
    let mut text = String::with_capacity(TEXT_BYTES_MAX);
    text.push_str(version);
    for number in numbers {
        text.push('_');
        hex::push(&mut text, *number);
    }
    let checksum = hex::checksum(text.as_bytes());
    text.push('_');
    text.extend(checksum.map(char::from));
    text
}

/// Reads what [`write()`] wrote, and nothing else.
pub(crate) fn read<const N: usize>(version: &str, text: &str) -> Option<[u64; N]> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let fields = text.rsplit_once('_')?.0.split('_').skip(1);
    let mut numbers = [0; N];
    // Too many or too few fields are seen below.
    for (number, field) in numbers.iter_mut().zip(fields) {
        *number = u64::from_str_radix(field, 16).ok()?;
    }
    // The checksum too; and numbers can be written in other ways, such as `+1` and `01`: no Kitbag
    // writes them so.
    (write(version, &numbers) == text).then_some(numbers)
}
