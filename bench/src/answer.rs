//! Reading an answer's bytes: where its body begins, and where it ends.

use anyhow::{Context as _, Result, bail, ensure};

const STOP: &[u8] = b"\r\n\r\n";
const LINE_END: &[u8] = b"\r\n";

/// What the head of an answer tells of its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) body_at: usize,
    pub(crate) length: Length,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Length {
    /// By this many bytes.
    Known(usize),
    /// By a chunk of no bytes.
    Chunked,
}

impl Head {
    /// Reads a head, which must be that of a 200; `None` where it is not complete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(head) = find(bytes, STOP) else {
            return Ok(None);
        };
        let body_at = head + STOP.len();
        let head = &bytes[..head];
        if !head.starts_with(b"HTTP/1.1 200 ") {
            bail!("an answer is not a 200: {}", String::from_utf8_lossy(bytes));
        }
        let header = |wanted: &str| {
            head.split(|byte| *byte == b'\n').find_map(|line| {
                let (name, value) = line.split_at_checked(wanted.len())?;
                name.eq_ignore_ascii_case(wanted.as_bytes())
                    .then_some(value)
            })
        };
        if header("transfer-encoding: chunked").is_some() {
            let length = Length::Chunked;
            return Ok(Some(Self { body_at, length }));
        }
        let length = header("content-length:").context("an answer does not tell its length")?;
        let length = Length::Known(std::str::from_utf8(length)?.trim().parse()?);
        Ok(Some(Self { body_at, length }))
    }
}

/// Joins the chunks of a body; `None` where the last one has not come.
pub(crate) fn joined_chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(line) = find(bytes, LINE_END) else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&bytes[..line])?;
        let size = usize::from_str_radix(size, 16).context("a chunk does not tell its size")?;
        let chunk = line + LINE_END.len();
        let end = chunk + size;
        if bytes.len() < end + LINE_END.len() {
            return Ok(None);
        }
        if size == 0 {
            let rest = bytes.len() - end - LINE_END.len();
            ensure!(rest == 0, "an answer is longer than it says");
            return Ok(Some(body));
        }
        body.extend_from_slice(&bytes[chunk..end]);
        bytes = &bytes[end + LINE_END.len()..];
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_found_once_the_head_is_complete() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\na: b\r\n\r\n{}";
        let head = Head::parse(bytes).unwrap().unwrap();
        assert_eq!(&bytes[head.body_at..], b"{}");
        assert_eq!(head.length, Length::Known(2));
        assert!(Head::parse(&bytes[..20]).unwrap().is_none());
    }

    #[test]
    fn other_status_is_an_error() {
        assert!(Head::parse(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_joined_once_the_last_one_is_there() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = Head::parse(head).unwrap().unwrap();
        assert_eq!(head.length, Length::Chunked);
        let body = b"2\r\n{\"\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        let joined = joined_chunks(body).unwrap().unwrap();
        assert_eq!(joined, b"{\"0123456789abcdef");
        for end in 0..body.len() {
            assert_eq!(joined_chunks(&body[..end]).unwrap(), None, "{end}");
        }
        assert!(joined_chunks(b"x\r\n").is_err());
    }
}
