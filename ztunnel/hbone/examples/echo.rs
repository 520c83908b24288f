// SPDX-License-Identifier: Apache-2.0
//! Both ends of HBONE over plain TCP, to try things out, to read, and to run conformance tests against.
//!
//! ```text
//! cargo run -p hbone --example echo -- serve 127.0.0.1:15008
//! cargo run -p hbone --example echo -- connect 127.0.0.1:15008 10.0.0.2:80 some words
//! ```
//!
//! `serve` accepts every CONNECT and sends back what it gets. `connect` asks for a tunnel to an address or name (the server does not care which), sends the
//! words, or what stands on its standard input, and prints what comes back.
//!
//! **Not for use in earnest**: real HBONE is mutual TLS, and who the peer is comes from its certificate. Here is none. Everything above TLS is the real thing: this
//! file is all that a caller of the crate has to do, with a thread for each connection where a proxy has one loop for all. Its parts, in the order of a turn:
//!
//! 1. [`Conversation::run`] waits for bytes or for the deadline the core names;
//! 2. [`Conversation::receive`] hands them to the core and acts on each event;
//! 3. [`Conversation::send`] writes what the core has queued and what the applications may send;
//! 4. [`Conversation::close`] ends the connection so that the peer can read the last word.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest, Forwarded};
use hbone::{Budget, Connection, ErrorCode, Event, Options, StreamId};

const USAGE: &str = "usage: echo serve ADDRESS [--banner TEXT] [--stay] [--max-frame BYTES] [--max-streams N]
       echo connect ADDRESS AUTHORITY [WORD...]

serve    accepts every tunnel and sends back what it gets
  --banner TEXT      what it says before it is spoken to
  --stay             never end a tunnel from this side
  --max-frame BYTES  the largest frame it takes (default 1048576)
  --max-streams N    the most tunnels of one connection (default 200)
connect  opens a tunnel to AUTHORITY (ip:port, [v6]:port or name:port), sends the words or its standard input, and prints the answer";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["serve", address, ref options @ ..] => serve(address, options),
        ["connect", address, authority, ref words @ ..] => connect(address, authority, words),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, mut arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    // All connections draw on one budget, as those of one pod do.
    let mut options = Options::server(Budget::node(64 << 20).pod(32 << 20));
    let mut echo = Echo::default();
    while let [name, rest @ ..] = arguments {
        arguments = match (*name, rest) {
            ("--stay", rest) => {
                echo.stays = true;
                rest
            }
            ("--banner", [text, rest @ ..]) => {
                echo.banner = text.as_bytes().to_vec();
                rest
            }
            ("--max-frame", [bytes, rest @ ..]) => {
                options.max_frame_size = bytes.parse()?;
                rest
            }
            ("--max-streams", [count, rest @ ..]) => {
                options.max_streams = count.parse()?;
                rest
            }
            _ => return Err(USAGE.into()),
        };
    }
    let (options, listener) = (Arc::new(options), TcpListener::bind(address)?);
    println!("listening on {}", listener.local_addr()?);
    for socket in listener.incoming() {
        let (socket, options, echo) = (socket?, options.clone(), echo.clone());
        std::thread::spawn(move || {
            let connection = Connection::server(options, Instant::now());
            let ended = Conversation::new(connection, socket, Application::Echo(echo)).and_then(Conversation::run);
            if let Err(error) = ended {
                println!("connection: {error}");
            }
        });
    }
    Ok(())
}

fn connect(address: &str, authority: &str, words: &[&str]) -> Result<(), Box<dyn Error>> {
    let socket = TcpStream::connect(address)?;
    let now = Instant::now();
    let mut connection = Connection::client(Arc::new(Options::client(Budget::node(64 << 20).pod(32 << 20))), now);
    let request = ConnectRequest {
        baggage: Baggage::new("service.name=echo-client"),
        forwarded: Some(Forwarded { client: Some(socket.local_addr()?), host: None }),
        ..ConnectRequest::new(authority.parse::<Authority>()?)
    };
    // The connection has just begun, so it takes a stream; the request goes out behind preface and SETTINGS, in one write.
    let stream = connection.request(now, &request)?;
    let mut to_send = words.join(" ").into_bytes();
    if words.is_empty() {
        std::io::stdin().read_to_end(&mut to_send)?;
    }
    let mut conversation = Conversation::new(connection, socket, Application::Print)?;
    conversation.flows.insert(stream, Flow { to_send, ends: true, waits: true, ..Flow::default() });
    conversation.run()
}

/// The connection of the core, its socket, and what the applications at this end have to send.
struct Conversation {
    connection: Connection,
    socket: TcpStream,
    bytes: Receiver<Vec<u8>>,
    flows: HashMap<StreamId, Flow>,
    application: Application,
}

/// What stands behind each tunnel.
enum Application {
    Echo(Echo),
    Print,
}

#[derive(Clone, Default)]
struct Echo {
    banner: Vec<u8>,
    stays: bool,
}

/// One direction of one tunnel: what is to be sent.
#[derive(Default)]
struct Flow {
    to_send: Vec<u8>,
    /// So many of `to_send` came in on the same stream; they are credited to the peer when they have gone out again.
    owed: usize,
    /// END_STREAM follows.
    ends: bool,
    /// The answer is still out. Data could go before it, but Istio's proxies do not send any, and if it is no there was no point.
    waits: bool,
}

impl Conversation {
    fn new(connection: Connection, socket: TcpStream, application: Application) -> Result<Self, Box<dyn Error>> {
        socket.set_nodelay(true)?;
        // Who writes must go on reading: were both ends to write only, both would wait for ever. What may pile up here is bounded
        // by the connection's window.
        let (sender, bytes) = mpsc::channel();
        let mut reader = socket.try_clone()?;
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { connection, socket, bytes, flows: HashMap::new(), application })
    }

    /// Turns until the connection is over, one way or the other.
    fn run(mut self) -> Result<(), Box<dyn Error>> {
        let mut ended = Ok(());
        self.send()?;
        while ended.is_ok() && !self.connection.is_drained() {
            let now = Instant::now();
            let deadline = self.connection.next_deadline().unwrap_or(now);
            let input = match self.bytes.recv_timeout(deadline.saturating_duration_since(now)) {
                Ok(input) => input,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            ended = self.receive(Instant::now(), &input);
            // Also after an error: the GOAWAY that says why is queued.
            self.send()?;
            // What went out may have been the last that somebody waited for: a reset behind an END_STREAM is told only then.
            if ended.is_ok() {
                ended = self.receive(Instant::now(), &[]);
                self.send()?;
            }
        }
        self.close()?;
        ended
    }

    /// Time and bytes for the core, and what it makes of them.
    fn receive(&mut self, now: Instant, mut input: &[u8]) -> Result<(), Box<dyn Error>> {
        self.connection.handle_timeout(now)?;
        while let Some(event) = self.connection.next_event(now, &mut input)? {
            match event {
                Event::Request { stream, request } => self.accept(stream, &request),
                Event::BadRequest { stream, status, reason } => {
                    println!("stream {}: answered {status}: {reason}", stream.number());
                    self.connection.reject(stream, status);
                }
                Event::Answer { stream, answer } if answer.is_success() => {
                    eprintln!("stream {}: accepted with {}", stream.number(), answer.status);
                    self.flows.entry(stream).or_default().waits = false;
                }
                Event::Answer { stream, answer } => {
                    self.connection.reset(stream, ErrorCode::CANCEL);
                    self.connection.go_away_gracefully();
                    return Err(format!("refused with {}", answer.status).into());
                }
                Event::Data { stream, bytes } => self.take(now, stream, bytes)?,
                Event::End { stream } => match &self.application {
                    Application::Echo(echo) => {
                        let ends = !echo.stays;
                        self.flows.entry(stream).or_default().ends = ends;
                    }
                    Application::Print => self.connection.go_away_gracefully(),
                },
                Event::Reset { stream, code, .. } => {
                    println!("stream {}: reset with {code}", stream.number());
                    self.flows.remove(&stream);
                    if let Application::Print = self.application {
                        return Err("the tunnel was reset".into());
                    }
                }
                // Nothing is to be done: `send` tries every stream each time, and `is_drained` knows of the GOAWAY.
                Event::Settings | Event::Writable { .. } | Event::Refused { .. } | Event::GoAway { .. } => {}
            }
        }
        Ok(())
    }

    fn accept(&mut self, stream: StreamId, request: &ConnectRequest) {
        let from = request.baggage.as_ref().map_or("who does not say", Baggage::as_str);
        println!("stream {}: to {} from {from}", stream.number(), request.authority);
        let mut flow = Flow::default();
        if let Application::Echo(echo) = &self.application {
            flow.to_send.clone_from(&echo.banner);
        }
        self.flows.insert(stream, flow);
        self.connection.answer(stream, &ConnectAnswer::accepted(Baggage::new("service.name=echo")));
    }

    /// Bytes that came out of a tunnel. Every one of them is either consumed or held, and if held then consumed later.
    fn take(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> std::io::Result<()> {
        if let Application::Print = self.application {
            self.connection.consumed(now, stream, bytes.len());
            return std::io::stdout().write_all(bytes);
        }
        match self.connection.hold(stream, bytes.len()) {
            Ok(()) => {
                let flow = self.flows.entry(stream).or_default();
                flow.to_send.extend_from_slice(bytes);
                flow.owed += bytes.len();
            }
            Err(over) => {
                println!("stream {}: {over}", stream.number());
                self.connection.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
                self.flows.remove(&stream);
            }
        }
        Ok(())
    }

    /// Writes everything that may be written now.
    fn send(&mut self) -> std::io::Result<()> {
        let now = Instant::now();
        let mut out = Vec::new();
        for (&stream, flow) in self.flows.iter_mut().filter(|(_, flow)| !flow.waits) {
            if !self.connection.can_send(stream) {
                if self.connection.is_open(stream) && flow.owed > 0 {
                    // The peer takes nothing more, so what it sent is for nobody.
                    self.connection.consumed(now, stream, flow.owed);
                    *flow = Flow::default();
                }
                continue;
            }
            while !flow.to_send.is_empty() {
                let length = self.connection.send_capacity(stream).min(flow.to_send.len());
                // HEADERS that are still queued come first.
                self.connection.write_control(&mut out);
                let Some(header) = self.connection.data_header(stream, length, false).filter(|_| length > 0) else {
                    break;
                };
                out.extend_from_slice(&header);
                out.extend(flow.to_send.drain(..length));
                // A banner stands before what is sent back, so it is the last of `to_send` that is owed.
                let returned = flow.owed.saturating_sub(flow.to_send.len());
                flow.owed -= returned;
                self.connection.consumed(now, stream, returned);
            }
            if flow.ends && flow.to_send.is_empty() {
                self.connection.finish(stream);
                flow.ends = false;
            }
        }
        let connection = &self.connection;
        self.flows.retain(|&stream, _| connection.is_open(stream));
        self.connection.write_control(&mut out);
        self.socket.write_all(&out)
    }

    /// FIN, then wait for the peer's: a socket closed with bytes unread sends an RST, which can overtake the GOAWAY.
    fn close(self) -> std::io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.socket.shutdown(Shutdown::Write)?;
        let until = Instant::now() + PATIENCE;
        while self.bytes.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        self.socket.shutdown(Shutdown::Both).or(Ok(()))
    }
}
