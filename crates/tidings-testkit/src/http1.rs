//! As much of HTTP/1.1 (RFC 9112) as a client needs that sends one request on a connection.

use std::io::{Error, ErrorKind};
use std::str;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};

/// No head, and no line between chunks, is longer.
const MAX_LEN: usize = 64 * 1024;

/// The request as it is sent.
pub(super) fn write_request(request: &Request<String>) -> Vec<u8> {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let mut wire = format!("{} {path} HTTP/1.1\r\n", request.method()).into_bytes();
    for (name, value) in request.headers() {
        wire.extend_from_slice(name.as_ref());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    let body = request.body();
    if !body.is_empty() {
        wire.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(body.as_bytes());
    wire
}

/// Takes the head of the response off the front, if all of it is there, and says how its body ends.
pub(super) fn take_head(unread: &mut BytesMut) -> Result<Option<Response<Framing>>, Error> {
    loop {
        let Some(end) = memchr::memmem::find(unread, b"\r\n\r\n") else {
            return match unread.len() {
                ..=MAX_LEN => Ok(None),
                _ => Err(invalid("a head that does not end")),
            };
        };
        let head = unread.split_to(end + 4);
        let response = parse_head(&head[..end])?;
        // Interim responses say nothing, but for the one that takes the connection.
        let status = response.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return framed(response).map(Some);
        }
    }
}

fn parse_head(head: &[u8]) -> Result<Response<()>, Error> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().and_then(|line| {
        let rest = line.strip_prefix(b"HTTP/1.")?;
        let code = rest.get(2..).filter(|_| rest[1] == b' ')?;
        let (code, reason) = code.split_at_checked(3)?;
        let code = StatusCode::from_bytes(code).ok()?;
        matches!(reason.first(), None | Some(b' ')).then_some(code)
    });
    let mut response = Response::new(());
    *response.status_mut() = status.ok_or(invalid("no status line"))?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(invalid("a field without a colon"))?);
        let name = HeaderName::from_bytes(name).map_err(invalid)?;
        let value = HeaderValue::from_bytes(value[1..].trim_ascii()).map_err(invalid)?;
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// RFC 9112, section 6.3.
fn framed(response: Response<()>) -> Result<Response<Framing>, Error> {
    let status = response.status();
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let mut lengths = response.headers().get_all(CONTENT_LENGTH).iter();
    let framing = if [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
        Framing::Length(0)
    } else if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() {
            return Err(invalid("a transfer coding other than chunked"));
        }
        Framing::Size
    } else if let Some(length) = lengths.next() {
        if lengths.any(|other| other != length) {
            return Err(invalid("two lengths"));
        }
        let length = number(length.as_bytes(), 10);
        Framing::Length(length.ok_or(invalid("a length that is no number"))?)
    } else {
        Framing::ToClose
    };
    Ok(response.map(|()| framing))
}

/// Where in the body the next byte is.
#[derive(Debug)]
pub(super) enum Framing {
    /// In the line with the size of a chunk.
    Size,
    /// In a chunk of which so much is left.
    Chunk(u64),
    /// In the line break behind a chunk.
    ChunkEnd,
    /// In the trailers.
    Trailers,
    /// So much of the body is left.
    Length(u64),
    /// In a body that ends with the connection.
    ToClose,
}

/// What could be done without another byte.
pub(super) enum Step {
    Data(Bytes),
    /// More bytes are needed.
    More,
    Done,
}

impl Framing {
    /// Takes the next piece of the body off the front. What is not whole stays there.
    pub(super) fn step(&mut self, unread: &mut BytesMut) -> Result<Step, Error> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = take_line(unread)? else {
                        return Ok(Step::More);
                    };
                    // Extensions are for whoever knows them.
                    let size = line[..].split(|byte| *byte == b';').next();
                    let size = number(size.unwrap_or_default().trim_ascii_end(), 16);
                    *self = match size.ok_or(invalid("a chunk without a size"))? {
                        0 => Self::Trailers,
                        size => Self::Chunk(size),
                    };
                }
                Self::Chunk(left) => {
                    let data = split_up_to(unread, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::ChunkEnd;
                    }
                    return Ok(if data.is_empty() {
                        Step::More
                    } else {
                        Step::Data(data)
                    });
                }
                Self::ChunkEnd => match take_line(unread)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => *self = Self::Size,
                    Some(_) => return Err(invalid("a chunk longer than its size")),
                },
                Self::Trailers => match take_line(unread)? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => *self = Self::Length(0),
                    Some(_) => {}
                },
                Self::Length(0) => return Ok(Step::Done),
                Self::Length(_) | Self::ToClose if unread.is_empty() => return Ok(Step::More),
                Self::Length(left) => {
                    let data = split_up_to(unread, *left);
                    *left -= data.len() as u64;
                    return Ok(Step::Data(data));
                }
                Self::ToClose => return Ok(Step::Data(unread.split().freeze())),
            }
        }
    }

    /// Whether the body ends properly if the connection does now.
    pub(super) fn may_close(&self) -> bool {
        matches!(self, Self::ToClose)
    }
}

fn split_up_to(unread: &mut BytesMut, len: u64) -> Bytes {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    unread.split_to(len.min(unread.len())).freeze()
}

/// The line at the front, without its CRLF.
fn take_line(unread: &mut BytesMut) -> Result<Option<BytesMut>, Error> {
    let Some(end) = memchr::memchr(b'\n', unread) else {
        return match unread.len() {
            ..=MAX_LEN => Ok(None),
            _ => Err(invalid("a line that does not end")),
        };
    };
    let mut line = unread.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(invalid("LF without CR"));
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// Digits only: `from_str_radix` would take a sign.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let are_digits = digits.iter().all(|byte| char::from(*byte).is_digit(radix));
    let digits = str::from_utf8(digits).ok().filter(|_| are_digits)?;
    u64::from_str_radix(digits, radix).ok()
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
