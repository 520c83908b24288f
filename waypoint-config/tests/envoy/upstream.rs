// SPDX-License-Identifier: Apache-2.0
//! Servers that behave badly, and the client.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Takes connections and never answers.
pub(crate) fn slow(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            kept.push(stream);
        }
    });
}

/// Answers every other request with 503, and counts.
pub(crate) fn flaky(socket: &Path) -> Arc<AtomicUsize> {
    let answer = |turn: usize| if turn.is_multiple_of(2) { "503 Service Unavailable" } else { "200 OK" };
    counting(socket, answer)
}

/// Answers, and counts.
pub(crate) fn spy(socket: &Path) -> Arc<AtomicUsize> {
    counting(socket, |_| "200 OK")
}

fn counting(socket: &Path, answer: fn(usize) -> &'static str) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut seen = Vec::new();
            let mut part = [0; 4096];
            while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(length) if length > 0 => seen.extend_from_slice(&part[..length]),
                    _ => break,
                }
            }
            // A connection without a request is no turn.
            if seen.is_empty() {
                continue;
            }
            let status = answer(counted.fetch_add(1, Ordering::SeqCst));
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    count
}

/// `GET /path` with further lines of the head; the whole answer.
pub(crate) fn ask(socket: &Path, request: &str) -> String {
    let mut lines = request.lines();
    let first = lines.next().unwrap();
    let mut head = format!("{first} HTTP/1.1\r\nconnection: close\r\n");
    let lines: Vec<&str> = lines.map(str::trim).collect();
    if !lines.iter().any(|line| line.starts_with("host:")) {
        head.push_str("host: web\r\n");
    }
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) => return format!("{error} after {:?}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Envoy takes its time to close.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length)
}
