//! As much of D-Bus as it takes to ask systemd for something: one connection, one call after the other, values of five
//! types (D-Bus specification, sections "Marshaling" and "Authentication Protocol").
//!
//! Why not `zbus`, which `cgroups-rs` brings: it is a third of the runtime's program, and every process of the runtime
//! has that in its memory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_sys::socket::connect_stream;

/// Where the system's bus is, unless `DBUS_SYSTEM_BUS_ADDRESS` names a socket.
const SOCKET: &str = "/run/dbus/system_bus_socket";

/// How long the bus may take for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(25);

/// The longest message that is read.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;

/// A value of a property.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Flag(bool),
    Numbers(&'a [u32]),
}

/// Bytes of a message, aligned from its beginning.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    fn variant(&mut self, value: &Value<'_>) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.number(u32::from(*flag));
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.number((numbers.len() * 4) as u32);
                numbers.iter().for_each(|number| self.number(*number));
            }
        }
    }

    /// An array of structures, each begun at a multiple of eight bytes.
    fn structures(&mut self, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(8);
        let begin = self.0.len();
        fill(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// `a(sv)`: names and values.
    pub(super) fn properties(&mut self, properties: &[(&str, Value<'_>)]) {
        self.structures(|body| {
            for (name, value) in properties {
                body.align(8);
                body.text(name);
                body.variant(value);
            }
        });
    }
}

/// A method of an object of the bus.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of its arguments.
    pub(super) signature: &'a str,
}

/// A connection to the bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Bus {
    /// Connects to the system's bus as this process' user.
    pub(super) fn connect() -> io::Result<Self> {
        let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
        let path = address.strip_prefix("unix:path=").and_then(|rest| rest.split([',', ';']).next());
        Self::at(Path::new(path.unwrap_or(SOCKET)))
    }

    fn at(socket: &Path) -> io::Result<Self> {
        let stream = connect_stream(socket, ANSWER_DEADLINE)?;
        let mut bus = Self { stream: BufReader::new(stream), serial: 0 };
        // The user's number as text, in hexadecimal.
        let user = nix::unistd::geteuid().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.stream.get_mut().write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut answer = String::new();
        (&mut bus.stream).take(1024).read_line(&mut answer)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the bus says {:?}", answer.trim())));
        }
        bus.stream.get_mut().write_all(b"BEGIN\r\n")?;
        let hello = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            signature: "",
        };
        bus.call(&hello, Body::default())?;
        Ok(bus)
    }

    /// Calls a method and waits for its answer; an error of the other end is told by its name and its words.
    pub(super) fn call(&mut self, method: &Method<'_>, body: Body) -> io::Result<()> {
        self.serial += 1;
        let mut message = Body(vec![b'l', CALL, 0, 1]);
        message.number(body.0.len() as u32);
        message.number(self.serial);
        message.structures(|message| {
            for (code, kind, value) in [
                (1, "o", method.path),
                (2, "s", method.interface),
                (3, "s", method.member),
                (6, "s", method.destination),
                (8, "g", method.signature),
            ] {
                message.align(8);
                message.0.push(code);
                message.signature(kind);
                if kind == "g" { message.signature(value) } else { message.text(value) }
            }
        });
        message.align(8);
        message.0.extend(body.0);
        self.stream.get_mut().write_all(&message.0)?;
        loop {
            let (kind, fields, body) = self.receive()?;
            if !matches!(kind, ANSWER | ERROR) || reply_serial(&fields) != Some(self.serial) {
                continue;
            }
            return if kind == ANSWER { Ok(()) } else { Err(io::Error::other(first_text(&body))) };
        }
    }

    /// The next message: its kind, the bytes of its header's fields, its body.
    fn receive(&mut self) -> io::Result<(u8, Vec<u8>, Vec<u8>)> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (body, fields) = (number(4), number(12));
        if head[0] != b'l' || body > MESSAGE_BYTES_MAX || fields > MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut read = |length: u32| {
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).map(|()| bytes)
        };
        let mut fields = read(fields.next_multiple_of(8))?;
        fields.truncate(number(12) as usize);
        Ok((head[1], fields, read(body)?))
    }
}

/// Which call a message answers: the field of code 5, an unsigned number. Fields begin at multiples of eight bytes.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    let entry = fields.chunks(8).find(|entry| entry.starts_with(&[5, 1, b'u', 0]))?;
    Some(u32::from_le_bytes(entry.get(4..8)?.try_into().ok()?))
}

/// The text that a body begins with.
fn first_text(body: &[u8]) -> String {
    let length = body.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    String::from_utf8_lossy(body.get(4..).unwrap_or_default().get(..length).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_real_bus_understands_every_type_that_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let config = folder.path().join("config");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context='default'><allow send_destination='*'/><allow receive_sender='*'/><allow own='*'/>\
             <allow user='*'/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn();
        let mut daemon = daemon.expect("dbus-daemon is installed");
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            let mut bus = Bus::at(&socket).unwrap();
            let mut body = Body::default();
            body.text("a.scope");
            body.text("fail");
            let numbers = [1, 2, 3];
            body.properties(&[
                ("Slice", Value::Text("a.slice")),
                ("Delegate", Value::Flag(true)),
                ("PIDs", Value::Numbers(&numbers)),
            ]);
            body.structures(|_| {});
            // Nobody has that name; a bus that did not understand would have closed the connection.
            let error = bus.call(&super::super::start_method(), body).unwrap_err();
            assert!(error.to_string().contains("org.freedesktop.systemd1"), "{error}");
            let mut body = Body::default();
            body.text("org.freedesktop.systemd1");
            let asked = Method {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "NameHasOwner",
                signature: "s",
            };
            bus.call(&asked, body).unwrap();
        });
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        outcome.unwrap();
    }
}
