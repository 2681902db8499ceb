//! A small server in the shape of the Hub, on a loopback port of its own.
#![allow(unreachable_pub, clippy::unwrap_used)] // Shared by test binaries.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// How many requests with the same method and path came before.
    pub earlier: usize,
}

impl Request {
    pub fn is_get(&self, file: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/{file}"))
    }

    /// Where the asked-for range starts.
    pub fn start(&self) -> usize {
        let range = self
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes="));
        range
            .and_then(|range| range.split('-').next()?.parse().ok())
            .unwrap_or(0)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    pub cut: Option<usize>,
}

impl Response {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// The files of the repository `org/name`, at one commit that is also `main`.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    files: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), contents.into());
        self
    }

    /// What the Hub answers.
    pub fn answer(&self, request: &Request) -> Response {
        let Some(rest) = request.path.strip_prefix("/org/name/resolve/") else {
            return Response::status(401).with("x-error-code", "RepoNotFound");
        };
        let (revision, name) = rest.split_once('/').unwrap_or((rest, ""));
        if revision != "main" && revision != COMMIT {
            return Response::status(404).with("x-error-code", "RevisionNotFound");
        }
        let Some(contents) = self.files.get(name) else {
            return Response::status(404).with("x-error-code", "EntryNotFound");
        };
        let hash: String = Sha256::digest(contents)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let start = request.start();
        Response::status(if start > 0 { 206 } else { 200 })
            .with("x-repo-commit", COMMIT)
            .with("etag", format!("\"{hash}\""))
            .body(&contents[start..])
    }
}

pub struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (answer, seen, stop) = (Arc::new(answer), Arc::clone(&log), Arc::clone(&stopping));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                // A client that goes away ends its own thread with an error, which is fine.
                std::thread::spawn(move || serve(&stream, &*answer, &seen));
            }
        });
        Self {
            address,
            log,
            stopping,
            thread: Some(thread),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// How often the contents of a file were asked for.
    pub fn gets(&self, file: &str) -> usize {
        self.log()
            .iter()
            .filter(|request| request.is_get(file))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One request per connection.
fn serve(
    stream: &TcpStream,
    answer: &dyn Fn(&Request) -> Response,
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let request = {
        let mut log = log.lock().unwrap();
        let earlier = log
            .iter()
            .filter(|seen| seen.method == method && seen.path == path)
            .count();
        let request = Request {
            method,
            path,
            headers,
            earlier,
        };
        log.push(request.clone());
        request
    };
    let response = answer(&request);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {} x\r\nconnection: close\r\n",
        response.status
    )?;
    if !response
        .headers
        .iter()
        .any(|(name, _)| name == "content-length")
    {
        write!(stream, "content-length: {}\r\n", response.body.len())?;
    }
    for (name, value) in &response.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if request.method == "GET" {
        let sent = response.cut.unwrap_or(response.body.len());
        stream.write_all(&response.body[..sent])?;
    }
    stream.flush()
}
