// SPDX-License-Identifier: Apache-2.0
//! With outputs that stand still, fail, or are used by many.

use super::*;
use std::sync::mpsc;

/// Every write waits until the test lets it go on.
struct Gated {
    entered: mpsc::Sender<Vec<u8>>,
    go: mpsc::Receiver<()>,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(bytes.to_vec()).unwrap();
        self.go.recv().map_err(|_| io::Error::other("gone"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gated(limit: usize) -> (Arc<Queue>, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
    let (entered, writes) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    (Queue::start(limit, Format::Plain, Gated { entered, go: gate }).unwrap(), writes, go)
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_reader_that_stands_still_costs_lines_and_nobody_waits() {
    let (queue, writes, go) = gated(10);
    queue.append(b"first\n", 1);
    assert_eq!(writes.recv_timeout(PATIENCE).unwrap(), b"first\n");
    queue.append(b"12345678\n", 1);
    queue.append(b"a\nb\n", 2);
    assert_eq!(queue.dropped(), 2);
    assert!(!queue.flush(Duration::from_millis(1)));
    go.send(()).unwrap();
    let next = String::from_utf8(writes.recv_timeout(PATIENCE).unwrap()).unwrap();
    let (kept, notice) = next.split_once('\n').unwrap();
    assert_eq!(kept, "12345678");
    assert!(
        notice.ends_with("\twarn\tlog\tlog lines were dropped: whoever reads standard output is too slow\tlines=2\n")
    );
    go.send(()).unwrap();
    assert!(queue.flush(PATIENCE));
    queue.append(b"again\n", 1);
    assert_eq!(writes.recv_timeout(PATIENCE).unwrap(), b"again\n");
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn a_burst_is_one_write() {
    let (queue, writes, go) = gated(QUEUE_BYTES);
    queue.append(b"0\n", 1);
    writes.recv_timeout(PATIENCE).unwrap();
    for _ in 0..100 {
        queue.append(b"x\n", 1);
    }
    go.send(()).unwrap();
    assert_eq!(writes.recv_timeout(PATIENCE).unwrap().len(), 200);
}

#[test]
fn lines_for_an_output_that_is_gone_count_as_dropped() {
    let (queue, _writes, go) = gated(QUEUE_BYTES);
    drop(go);
    queue.append(b"a\nb\n", 2);
    assert!(queue.flush(PATIENCE));
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn lines_of_many_threads_stay_whole() {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    struct Channel(mpsc::Sender<Vec<u8>>);
    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let queue = Queue::start(QUEUE_BYTES, Format::Plain, Channel(sender)).unwrap();
    std::thread::scope(|scope| {
        for name in ["aaaa\n", "bbbb\n", "cccc\n"] {
            let queue = &queue;
            scope.spawn(move || (0..1000).for_each(|_| queue.append(name.as_bytes(), 1)));
        }
    });
    assert!(queue.flush(PATIENCE));
    let all: Vec<u8> = receiver.try_iter().flatten().collect();
    let text = String::from_utf8(all).unwrap();
    assert_eq!(text.lines().count(), 3000);
    assert!(text.lines().all(|line| ["aaaa", "bbbb", "cccc"].contains(&line)));
}
