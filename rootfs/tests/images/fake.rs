//! A registry that lies, breaks off and asks for proof: by hand, in this process, so that it can count and misbehave.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_rootfs::{Error, Image, Reference};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Bench, MANIFEST, Made, Tar};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
pub(crate) struct Reply {
    /// With headers, but for the length.
    pub(crate) status: String,
    pub(crate) body: Vec<u8>,
    pub(crate) length: Length,
    pub(crate) pace: Pace,
}

/// How a body comes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    #[default]
    Whole,
    /// So many bytes, and then a pause.
    Trickle(usize, Duration),
    /// At once as far as it goes; what was promised beyond never comes, and the connection stays.
    Hang,
}

/// What is said of a body's length.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Length {
    /// The truth.
    #[default]
    Told,
    /// More than comes.
    Promised(usize),
    /// Nothing: the connection's end is the body's.
    Untold,
}

impl Reply {
    pub(crate) fn new(status: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { status: status.into(), body: body.into(), length: Length::Told, pace: Pace::Whole }
    }
}

/// Answers on a port of its own until the test's runtime ends; gives `host:port`.
pub(crate) async fn listen(handle: impl Fn(&str, Request) -> Reply + Send + Sync + 'static) -> String {
    listen_at("127.0.0.1:0", handle).await
}

pub(crate) async fn listen_at(
    address: &str,
    handle: impl Fn(&str, Request) -> Reply + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind(address).await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (handle, own) = (Arc::new(handle), host.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (handle, own) = (Arc::clone(&handle), own.clone());
            tokio::spawn(async move { serve(stream, |request| handle(&own, request)).await });
        }
    });
    host
}

async fn serve(stream: TcpStream, handle: impl Fn(Request) -> Reply) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read(&mut stream).await?;
        let reply = handle(request);
        let (length, ends) = match reply.length {
            Length::Told => (format!("Content-Length: {}\r\n", reply.body.len()), false),
            Length::Promised(length) => (format!("Content-Length: {length}\r\n"), true),
            Length::Untold => ("Connection: close\r\n".to_owned(), true),
        };
        let head = format!("HTTP/1.1 {}\r\n{length}\r\n", reply.status);
        stream.write_all(head.as_bytes()).await.ok()?;
        let (piece, pause) = match reply.pace {
            Pace::Trickle(bytes, pause) => (bytes, pause),
            Pace::Whole | Pace::Hang => (usize::MAX, Duration::ZERO),
        };
        for piece in reply.body.chunks(piece) {
            stream.write_all(piece).await.ok()?;
            stream.flush().await.ok()?;
            tokio::time::sleep(pause).await;
        }
        stream.flush().await.ok()?;
        if reply.pace == Pace::Hang {
            std::future::pending::<()>().await;
        }
        if ends {
            return None;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut words = lines[0].split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    // A proxy is asked with the whole URL.
    let target = target.strip_prefix("http://").map_or(target, |rest| &rest[rest.find('/').unwrap()..]);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |line: &String| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
    let headers = lines[1..].iter().filter_map(header).collect();
    let mut request = Request { method, path: path.to_owned(), query: query.to_owned(), headers, body: String::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

/// How a path is answered.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// Breaks the connection off after so many bytes, this often.
    pub(crate) break_off: Option<(usize, usize)>,
    /// Answers with a status (and headers) in place of the content, this often.
    pub(crate) refusal: Option<(&'static str, usize)>,
    pub(crate) ranges: Ranges,
    pub(crate) length: Length,
    pub(crate) trickle: Option<(usize, Duration)>,
    /// Whether it falls silent where it would break off.
    pub(crate) hangs: bool,
}

/// What is made of a `Range`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ranges {
    #[default]
    Right,
    /// The whole, said to be it.
    Ignored,
    /// Another part.
    Elsewhere,
    /// A part that does not say which.
    Unsaid,
    /// 416.
    Refused,
}

#[derive(Default)]
pub(crate) struct Fake {
    answers: HashMap<String, Answer>,
    seen: Vec<Request>,
    pub(crate) token: Option<&'static str>,
    /// The `Authorization` without which nothing is told, and the challenge.
    pub(crate) wants: Option<(String, String)>,
}

/// A registry with one repository, `app`.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) fake: Arc<Mutex<Fake>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let fake: Arc<Mutex<Fake>> = Arc::default();
        let shared = Arc::clone(&fake);
        let host = listen_at(address, move |host, request| shared.lock().unwrap().answer(host, request)).await;
        Self { host, fake }
    }

    /// Serves an image as `app:latest`.
    pub(crate) async fn of(made: &mut Made) -> Self {
        let server = Self::start().await;
        server.serve(made);
        server
    }

    pub(crate) fn serve(&self, made: &mut Made) {
        let manifest = made.manifest();
        let digest = manifest["digest"].as_str().unwrap().to_owned();
        self.serve_blobs(made);
        self.put("manifests/latest", MANIFEST, made.blobs[&digest].clone());
    }

    pub(crate) fn serve_blobs(&self, made: &Made) {
        for (digest, content) in &made.blobs {
            self.put(&format!("blobs/{digest}"), "application/octet-stream", content.clone());
            self.put(&format!("manifests/{digest}"), MANIFEST, content.clone());
        }
    }

    pub(crate) fn put(&self, path: &str, content_type: &'static str, body: Vec<u8>) {
        let answer = Answer { content_type, body, ..Answer::default() };
        self.fake.lock().unwrap().answers.insert(format!("/v2/app/{path}"), answer);
    }

    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Answer)) {
        change(self.fake.lock().unwrap().answers.get_mut(&format!("/v2/app/{path}")).unwrap());
    }

    pub(crate) fn change_all(&self, change: impl FnMut(&mut Answer)) {
        self.fake.lock().unwrap().answers.values_mut().for_each(change);
    }

    /// All that was asked.
    pub(crate) fn all_seen(&self) -> Vec<Request> {
        self.fake.lock().unwrap().seen.clone()
    }

    /// The range of each request for a path.
    pub(crate) fn seen(&self, path: &str) -> Vec<Option<String>> {
        let path = format!("/v2/app/{path}");
        let all = self.all_seen().into_iter().filter(|request| request.path == path);
        all.map(|request| request.header("range").map(str::to_owned)).collect()
    }

    pub(crate) fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    pub(crate) async fn pull(&self, bench: &Bench) -> Result<Image, Error> {
        bench.store.pull(&self.reference("app"), None, None).await
    }
}

impl Fake {
    fn answer(&mut self, host: &str, request: Request) -> Reply {
        if request.path == "/token" {
            let query = &request.query;
            assert!(query.contains("service=fake") && query.contains("scope=repository%3Aapp%3Apull"), "{query}");
            return Reply::new("200 OK", json!({ "token": self.token }).to_string());
        }
        self.seen.push(request.clone());
        if let Some(token) = self.token {
            let scope = "service=\"fake\",scope=\"repository:app:pull\"";
            self.wants = Some((format!("Bearer {token}"), format!("Bearer realm=\"http://{host}/token\",{scope}")));
        }
        if let Some((wanted, challenge)) = &self.wants
            && request.header("authorization") != Some(wanted)
        {
            return Reply::new(format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"), "");
        }
        match self.answers.get_mut(&request.path) {
            Some(answer) => answer.reply(request.header("range")),
            None => Reply::new("404 Not Found", ""),
        }
    }
}

impl Answer {
    fn reply(&mut self, range: Option<&str>) -> Reply {
        if let Some((status, times)) = &mut self.refusal
            && *times > 0
        {
            *times -= 1;
            return Reply::new(*status, "");
        }
        let asked = range.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        let size = self.body.len();
        let part = |from: usize| format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}", size - 1);
        let (status, from) = match (asked, self.ranges) {
            (None, _) | (_, Ranges::Ignored) => ("200 OK".to_owned(), 0),
            (Some(from), _) if from >= size => return Reply::new("416 Range Not Satisfiable", ""),
            (Some(from), Ranges::Right) => (part(from), from),
            (Some(from), Ranges::Elsewhere) => (part(from + 1), from + 1),
            (Some(_), Ranges::Unsaid) => ("206 Partial Content".to_owned(), 7),
            (Some(_), Ranges::Refused) => return Reply::new("416 Range Not Satisfiable", ""),
        };
        let status = format!("{status}\r\nContent-Type: {}", self.content_type);
        let mut body = self.body[from..].to_vec();
        let mut length = self.length;
        let mut pace = self.trickle.map_or(Pace::Whole, |(bytes, pause)| Pace::Trickle(bytes, pause));
        if let Some((bytes, times)) = &mut self.break_off
            && *times > 0
        {
            *times -= 1;
            length = if length == Length::Told { Length::Promised(body.len()) } else { length };
            body.truncate(*bytes);
            pace = if self.hangs { Pace::Hang } else { pace };
        }
        Reply { status, body, length, pace }
    }
}

/// Data that does not compress.
pub(crate) fn noise(bytes: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + u8::try_from(state >> 58).unwrap())
    };
    (0..bytes).map(|_| next()).collect()
}

/// An image of one layer, and the layer's digest.
pub(crate) fn one_layer() -> (Made, String) {
    let tar = Tar::new().file("file", &noise(200_000)).end();
    let mut made = Made::default();
    made.layer(&tar, tar.clone(), "application/vnd.oci.image.layer.v1.tar");
    (made, berth_rootfs::Digest::of(&tar).to_string())
}

pub(crate) fn assert_nothing_left(bench: &Bench) {
    assert!(bench.store.images().unwrap().is_empty());
    assert!(bench.unfinished().is_empty() && bench.names("layers").is_empty(), "{:?}", bench.names("layers"));
}
