//! Numbers in hex, as tokens have them, without a formatter: each request reads a token.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

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
pub(crate) fn push(text: &mut String, number: u64) {
    let digits = number.checked_ilog2().unwrap_or(0) / 4;
    for digit in (0..=digits).rev() {
        let [.., low] = (number >> (4 * digit)).to_be_bytes();
        text.push(DIGITS[usize::from(low % 16)].into());
    }
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
            let mut text = String::new();
            push(&mut text, number);
            assert_eq!(text, format!("{number:x}"));
        }
        // The empty one's is 0, so it has all the zeros.
        for text in ["", "a", "kitbag"] {
            let wanted = format!("{:08x}", crc32fast::hash(text.as_bytes()));
            assert_eq!(checksum(text.as_bytes()), wanted.as_bytes());
        }
    }
}
