//! Reading a container's log for somebody far away: from the place that was asked for, through its parts, and on while
//! the container runs. New lines are told by the kernel; nothing is polled.

mod files;
mod line;
mod query;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use inotify::{Inotify, WatchMask};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::files::Part;
pub use self::line::{LogOptions, Output};
use self::line::{More, Printer, Splitter};
pub(crate) use self::query::LogQuery;

/// How many chunks wait for a slow reader.
const CHUNKS_MAX: usize = 4;
/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A log that is open, placed where showing it begins.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    options: LogOptions,
    parts: Vec<Part>,
    /// What happens in its folder, if it is to be followed.
    changes: Option<Changes>,
}

type Changes = inotify::EventStream<[u8; 4096]>;
type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// Opens the log whose newest part is at `path`.
pub async fn open(path: PathBuf, options: LogOptions) -> io::Result<Log> {
    // Watched before it is read, so that nothing falls between the two.
    let changes = if options.follow { Some(watch(&path)?) } else { None };
    let (tail, log) = (options.tail_lines, path.clone());
    let parts = blocking(move || {
        let mut parts = files::open_all(&log)?;
        if let Some(lines) = tail {
            files::skip_to_tail(&mut parts, lines)?;
        }
        Ok(parts)
    })
    .await?;
    Ok(Log { path, options, parts, changes })
}

impl Log {
    /// The log as it is to be shown. `ended` tells that the container has ended and its log is complete; it is waited for
    /// only when following. The stream ends at the latest then; its reader stops at once when it is dropped.
    pub fn stream(
        self,
        ended: impl Future<Output = ()> + Send + 'static,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        tokio::spawn(async move {
            let path = self.path.clone();
            if let Err(error) = send(self, ended, &chunks).await {
                tracing::warn!(log = %path.display(), %error, "cannot read");
                // Its reader may be gone.
                let _ = chunks.send(Err(error)).await;
            }
        });
        ReceiverStream::new(receiver)
    }
}

async fn send(log: Log, ended: impl Future<Output = ()> + Send, chunks: &Chunks) -> io::Result<()> {
    let Log { path, options, parts, mut changes } = log;
    let mut reader = Reader { printer: Printer::new(options), splitter: Splitter::default(), chunks };
    let Some((mut last, older)) = split_last(parts) else { return Ok(()) };
    for part in older {
        if reader.drain(part).await?.is_none() {
            return Ok(());
        }
        reader.splitter.clear();
    }
    let mut ended = pin!(ended);
    let mut has_ended = false;
    loop {
        let Some(drained) = reader.drain(last).await? else { return Ok(()) };
        last = drained;
        let Some(changes) = &mut changes else { return Ok(()) };
        if files::is_rotated(&path, last.inode) {
            // Its writer has left it for good, but may have done so after it was read.
            let Some(drained) = reader.drain(last).await? else { return Ok(()) };
            let (log, inode) = (path.clone(), drained.inode);
            if let Some(next) = blocking(move || files::open_after(&log, inode)).await? {
                last = next;
                reader.splitter.clear();
                continue;
            }
            last = drained;
        }
        if has_ended {
            return Ok(());
        }
        tokio::select! {
            () = &mut ended => has_ended = true,
            () = chunks.closed() => return Ok(()),
            change = changes.next() => match change {
                Some(change) => drop(change?),
                None => return Ok(()),
            },
        }
    }
}

struct Reader<'a> {
    printer: Printer,
    splitter: Splitter,
    chunks: &'a Chunks,
}

impl Reader<'_> {
    /// Sends what a part has left. Gives the part back, unless there is nothing more to send or nobody to send it to.
    async fn drain(&mut self, mut part: Part) -> io::Result<Option<Part>> {
        loop {
            let (back, bytes) = blocking(move || {
                let mut buffer = vec![0; CHUNK_BYTES];
                let count = part.file.read(&mut buffer)?;
                buffer.truncate(count);
                Ok((part, buffer))
            })
            .await?;
            part = back;
            if bytes.is_empty() {
                return Ok(Some(part));
            }
            self.splitter.push(&bytes);
            let mut shown = Vec::new();
            let mut more = More::Yes;
            while more == More::Yes {
                let Some(raw) = self.splitter.next_line() else { break };
                more = self.printer.print(raw, &mut shown);
            }
            if !shown.is_empty() && self.chunks.send(Ok(Bytes::from(shown))).await.is_err() {
                return Ok(None);
            }
            if more == More::No {
                return Ok(None);
            }
        }
    }
}

fn watch(path: &Path) -> io::Result<Changes> {
    let folder = path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a log without a folder"))?;
    let inotify = Inotify::init()?;
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVE | WatchMask::DELETE | WatchMask::DELETE_SELF;
    inotify.watches().add(folder, mask)?;
    inotify.into_event_stream([0; 4096])
}

fn split_last(mut parts: Vec<Part>) -> Option<(Part, Vec<Part>)> {
    let last = parts.pop()?;
    Some((last, parts))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn write(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "2026-01-01T00:00:00Z stdout {text}").unwrap();
    }

    async fn expect(stream: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin), expected: &str) {
        let mut text = String::new();
        while text.len() < expected.len() {
            let chunk = timeout(DEADLINE, stream.next()).await.expect(&text).expect("more").unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn a_log_is_followed_across_rotation_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        write(&path, "F one");
        let (end, ended) = oneshot::channel::<()>();
        let options = LogOptions { follow: true, ..Default::default() };
        let log = open(path.clone(), options).await.unwrap();
        let mut stream = Box::pin(log.stream(async move { drop(ended.await) }));
        expect(&mut stream, "one\n").await;
        write(&path, "P tw");
        expect(&mut stream, "tw").await;
        write(&path, "F o");
        fs::rename(&path, folder.path().join("0.log.20260101-000000")).unwrap();
        write(&path, "F three");
        expect(&mut stream, "o\nthree\n").await;
        write(&path, "F four");
        end.send(()).unwrap();
        expect(&mut stream, "four\n").await;
        assert!(timeout(DEADLINE, stream.next()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn without_following_the_stream_ends_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        for n in 0..10_000 {
            write(&path, &format!("F {n}"));
        }
        let options = LogOptions { tail_lines: Some(2), limit_bytes: Some(7), ..Default::default() };
        let log = open(path, options).await.unwrap();
        let chunks: Vec<_> = log.stream(std::future::pending()).collect().await;
        let text: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
        assert_eq!(text, b"9998\n99");
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_the_following() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        write(&path, "F one");
        let (alive, mut gone) = mpsc::channel::<()>(1);
        let options = LogOptions { follow: true, ..Default::default() };
        let ended = async move {
            std::future::pending::<()>().await;
            drop(alive);
        };
        let mut stream = Box::pin(open(path, options).await.unwrap().stream(ended));
        expect(&mut stream, "one\n").await;
        drop(stream);
        assert!(timeout(DEADLINE, gone.recv()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_an_error() {
        for follow in [false, true] {
            let options = LogOptions { follow, ..Default::default() };
            let error = open(PathBuf::from("/nonexistent/0.log"), options).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
