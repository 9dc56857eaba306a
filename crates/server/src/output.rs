//! What a command says at its end.

use std::io::{self, ErrorKind, Write as _};

/// Writes to stdout; nobody need be there to read it.
/// # Errors
/// Where it cannot be written, as to a file on a full disk.
pub(crate) fn say(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}
