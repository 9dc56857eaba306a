//! Numbers in hex, as tokens have them, without a formatter: each request reads a token.

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Digits of the largest number.
const NUMBER_DIGITS_MAX: usize = 16;

/// Returns all eight digits of a checksum.
pub(crate) fn checksum(of: &[u8]) -> [u8; 8] {
    let number = crc32fast::hash(of);
    let mut digits = [0; 8];
    for (digit, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        digit.copy_from_slice(&pair(byte));
    }
    digits
}

/// Appends a number without leading zeros.
pub(crate) fn push(text: &mut Vec<u8>, number: u64) {
    let digits = number.checked_ilog2().unwrap_or(0) / 4;
    for digit in (0..=digits).rev() {
        let [.., low] = (number >> (4 * digit)).to_be_bytes();
        text.push(DIGITS[usize::from(low % 16)]);
    }
}

/// Reads a number as [`push`] writes it, and in no other of the ways there are, such as `+1` or `01`.
pub(crate) fn read(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > NUMBER_DIGITS_MAX || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digits = text.iter();
    digits.try_fold(0, |number, byte| {
        Some(number << 4 | u64::from(digit(byte)?))
    })
}

fn pair(byte: u8) -> [u8; 2] {
    [byte / 16, byte % 16].map(|digit| DIGITS[usize::from(digit)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_a_formatter_writes_them() {
        for number in [0, 1, 15, 16, 0xabc, 1 << 60, u64::MAX] {
            let mut text = Vec::new();
            push(&mut text, number);
            assert_eq!(text, format!("{number:x}").into_bytes());
            assert_eq!(read(&text), Some(number));
        }
        for text in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "A",
            "g",
            " 1",
            "10000000000000000",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        // The empty one's is 0, so it has all the zeros.
        for text in ["", "a", "kitbag"] {
            let wanted = format!("{:08x}", crc32fast::hash(text.as_bytes()));
            assert_eq!(checksum(text.as_bytes()), wanted.as_bytes());
        }
    }
}
