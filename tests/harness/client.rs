//! A raw HTTP/1.1 client over a plain socket. It knows where a message ends and whether it ended well, and judges
//! nothing else: what it was sent can be looked at byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// A request to be written.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `target`: path and query as they go out.
    pub fn new(method: &str, target: &str) -> Request {
        Request { method: method.to_owned(), target: target.to_owned(), fields: Vec::new(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    pub fn head(target: &str) -> Request {
        Request::new("HEAD", target)
    }

    /// With `Content-Length`.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Request {
        let body = body.as_ref();
        let request = Request::new("POST", target).field("Content-Length", &body.len().to_string());
        Request { body: body.to_owned(), ..request }
    }

    /// In chunks.
    pub fn post_chunked(target: &str, chunks: &[&str]) -> Request {
        let request = Request::new("POST", target).field("Transfer-Encoding", "chunked");
        let chunk = |data: &&str| format!("{:x}\r\n{data}\r\n", data.len());
        let body = chunks.iter().map(chunk).collect::<String>() + "0\r\n\r\n";
        Request { body: body.into(), ..request }
    }

    pub fn field(mut self, name: &str, value: &str) -> Request {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The bytes, with `Host` in front unless it was given.
    pub fn bytes(&self, to: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {to}\r\n");
        }
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it on a connection of its own.
    #[track_caller]
    pub fn ask(&self, to: SocketAddr) -> Response {
        Connection::open(to).ask(self)
    }
}

#[track_caller]
pub fn get(to: SocketAddr, target: &str) -> Response {
    Request::get(target).ask(to)
}

#[track_caller]
pub fn post(to: SocketAddr, target: &str, body: impl AsRef<[u8]>) -> Response {
    Request::post(target, body).ask(to)
}

/// A connection that is kept for as long as the test wants it.
pub struct Connection {
    stream: TcpStream,
    to: SocketAddr,
    /// Read and not yet used.
    buffer: Vec<u8>,
    /// The other side did not close, but broke off.
    broken: Option<std::io::Error>,
}

/// Status line and fields.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    /// In their order, names as they were written.
    pub fields: Vec<(String, String)>,
}

/// A response, as far as it came.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    pub end: End,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is none.
    Bodiless,
    /// All bytes of its `Content-Length` came.
    Length,
    /// The last chunk came.
    Chunked,
    /// The connection was closed, which is how the head said it would end.
    Close,
    /// The connection was closed or reset before the end.
    Cut,
}

impl Connection {
    #[track_caller]
    pub fn open(to: SocketAddr) -> Connection {
        Connection::try_open(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"))
    }

    /// Where nobody may be listening.
    pub fn try_open(to: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, to, buffer: Vec::new(), broken: None })
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the connection takes what is sent");
    }

    /// For bytes that the other side may refuse to read.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends nothing more; answers can still be read.
    #[track_caller]
    pub fn close_writing(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    }

    /// Sends a request and does not wait for the answer.
    #[track_caller]
    pub fn send_request(&mut self, request: &Request) {
        self.send(request.bytes(self.to));
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send_request(request);
        self.receive(&request.method)
    }

    /// Sends a request and reads its answer, if the other side lives long enough to give all of it.
    #[track_caller]
    pub fn try_ask(&mut self, request: &Request) -> std::io::Result<Response> {
        self.try_send(request.bytes(self.to))?;
        let head = self.head().ok_or(ErrorKind::UnexpectedEof)?;
        let answer = self.rest(&request.method, head);
        if answer.is_whole() { Ok(answer) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads the answer to a request with `method`.
    #[track_caller]
    pub fn receive(&mut self, method: &str) -> Response {
        match self.head() {
            Some(head) => self.rest(method, head),
            None => panic!("the connection was closed without an answer: {:?}, {:?}", self.broken, self.buffer),
        }
    }

    /// Reads one head, past 1xx answers; `None`: the connection was closed before it.
    #[track_caller]
    pub fn head(&mut self) -> Option<Head> {
        loop {
            let head = parsed_head(&self.until(b"\r\n\r\n")?);
            if !(100..200).contains(&head.status) {
                return Some(head);
            }
        }
    }

    /// Reads one head, a 1xx as well.
    #[track_caller]
    pub fn interim_head(&mut self) -> Head {
        let head = self.until(b"\r\n\r\n").map(|bytes| parsed_head(&bytes));
        head.unwrap_or_else(|| panic!("the connection was closed without an answer: {:?}", self.broken))
    }

    /// Reads the body behind a head.
    #[track_caller]
    pub fn rest(&mut self, method: &str, head: Head) -> Response {
        let (body, end) = if method == "HEAD" || matches!(head.status, 204 | 304) {
            (Vec::new(), End::Bodiless)
        } else if head.field("transfer-encoding").is_some() {
            self.chunks()
        } else if let Some(length) = head.field("content-length") {
            self.length(length.parse().expect("a length"))
        } else {
            while self.fill() {}
            let end = if self.broken.is_some() { End::Cut } else { End::Close };
            (std::mem::take(&mut self.buffer), end)
        };
        Response { head, body, end }
    }

    /// The next bytes, at least one; empty at the end of the connection. For bodies that never end.
    #[track_caller]
    pub fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill();
        }
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side closes the connection without sending anything more.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn length(&mut self, length: usize) -> (Vec<u8>, End) {
        while self.buffer.len() < length {
            if !self.fill() {
                return (std::mem::take(&mut self.buffer), End::Cut);
            }
        }
        (self.buffer.drain(..length).collect(), End::Length)
    }

    fn chunks(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.until(b"\r\n") else { return (body, End::Cut) };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("{line:?} is no chunk size"));
            let (data, end) = self.length(size);
            body.extend(data);
            let Some(behind) = (end == End::Length).then(|| self.until(b"\r\n")).flatten() else {
                return (body, End::Cut);
            };
            assert_eq!(behind, b"\r\n", "behind a chunk");
            if size == 0 {
                return (body, End::Chunked);
            }
        }
    }

    /// The bytes up to and with `mark`; `None` if the connection ends before it.
    #[track_caller]
    fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Some(self.buffer.drain(..at + mark.len()).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads at least one byte; `false` at the end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut bytes = vec![0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend(bytes.iter().take(count));
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let so_far = String::from_utf8_lossy(&self.buffer).into_owned();
                panic!("nothing came from {} for {PATIENCE:?}; unread so far: {so_far:?}", self.to)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(),
            // A reset: the other side is gone.
            Err(error) => {
                self.broken = Some(error);
                false
            }
        }
    }
}

/// A client that keeps its connection for as long as the other side does, and then opens another.
pub struct Client {
    to: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    pub fn of(to: SocketAddr) -> Client {
        Client { to, connection: None }
    }

    /// Sends a request; fails where nobody listens or the answer was cut off.
    #[track_caller]
    pub fn try_ask(&mut self, request: &Request) -> std::io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::try_open(self.to)?,
        };
        let answer = connection.try_ask(request)?;
        let closes = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.connection = (!closes && answer.end != End::Close).then_some(connection);
        Ok(answer)
    }

    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Response {
        self.try_ask(request).unwrap_or_else(|error| panic!("{error}: {request:?}"))
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }
}

fn parsed_head(raw: &[u8]) -> Head {
    let text = String::from_utf8_lossy(raw);
    let mut lines = text.trim_end().split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let digits = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next());
    let status = digits.and_then(|digits| digits.parse().ok());
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no field line"));
        (name.to_owned(), value.trim().to_owned())
    };
    Head {
        status: status.unwrap_or_else(|| panic!("{status_line:?} is no status line")),
        fields: lines.map(field).collect(),
    }
}

impl Head {
    /// Value of the first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Values of all fields called `name`, in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let called = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        called.map(|(_, value)| value.as_str()).collect()
    }

    /// The detail of our member of `Cache-Status`: `miss/not-cached`.
    #[track_caller]
    pub fn detail(&self) -> &str {
        let value = self.field("cache-status").unwrap_or_else(|| panic!("no Cache-Status: {self:?}"));
        let ours = value.rsplit(", ").next().unwrap_or_default();
        let detail = ours.strip_prefix("Millpond; ").and_then(|rest| rest.rsplit("detail=").next());
        detail.unwrap_or_else(|| panic!("no detail of ours in {value:?}"))
    }

    /// The first word of the detail: `miss`.
    #[track_caller]
    pub fn outcome(&self) -> &str {
        self.detail().split('/').next().unwrap_or_default()
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    #[track_caller]
    pub fn detail(&self) -> &str {
        self.head.detail()
    }

    #[track_caller]
    pub fn outcome(&self) -> &str {
        self.head.outcome()
    }

    /// Whether all of it came.
    pub fn is_whole(&self) -> bool {
        self.end != End::Cut
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}
