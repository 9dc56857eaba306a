//! What a command says at its end.

use std::io::{self, ErrorKind, Write};

/// Writes to stdout; nobody need be there to read it.
/// # Errors
/// Where it cannot be written, as to a file on a full disk.
pub(crate) fn say(text: &[u8]) -> io::Result<()> {
    is_heard(text).map(drop)
}

/// Writes to stdout, and tells whether somebody is still there to read it.
/// # Errors
/// As [`say`].
pub(crate) fn is_heard(text: &[u8]) -> io::Result<bool> {
    write(&mut io::stdout().lock(), text)
}

fn write(out: &mut impl Write, text: &[u8]) -> io::Result<bool> {
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        said => said.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_hears_nothing() {
        let (reader, mut writer) = io::pipe().unwrap();
        assert!(write(&mut writer, b"a").unwrap());
        drop(reader);
        assert!(!write(&mut writer, b"a").unwrap());
    }
}
