// SPDX-License-Identifier: Apache-2.0
//! A whole process with real signals and a real standard output: this program starts itself as a child and looks at how it behaves.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mesh_common::lifecycle::{Shutdown, Tasks, drain};
use mesh_common::telemetry::{self, Format, Line, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--as-child") {
        return child(&arguments[place + 1]);
    }
    let filter = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'));
    let tests: [(&str, fn()); 6] = [
        ("a_signal_starts_an_orderly_end", a_signal_starts_an_orderly_end),
        ("further_sigterms_change_nothing", further_sigterms_change_nothing),
        ("a_second_sigint_ends_it_at_once", a_second_sigint_ends_it_at_once),
        ("a_standard_output_nobody_reads_stops_nothing", a_standard_output_nobody_reads_stops_nothing),
        ("a_standard_output_that_is_gone_stops_nothing", a_standard_output_that_is_gone_stops_nothing),
        ("the_message_of_a_panic_is_the_last_line", the_message_of_a_panic_is_the_last_line),
    ];
    for (name, test) in tests {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
}

fn a_signal_starts_an_orderly_end() {
    for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
        let (mut process, mut lines) = start("orderly");
        assert_eq!(next(&mut lines), "info\tprocess\tready");
        send(&process, signal);
        assert_eq!(next(&mut lines), format!("info\tprocess\tshutting down\treason=\"{name}\""));
        assert_eq!(next(&mut lines), "info\tprocess\tdrained\tend=Complete");
        assert_eq!(end(&mut process).code(), Some(3));
    }
}

fn further_sigterms_change_nothing() {
    let (mut process, mut lines) = start("stuck");
    assert_eq!(next(&mut lines), "info\tprocess\tready");
    send(&process, Signal::SIGTERM);
    assert_eq!(next(&mut lines), "info\tprocess\tshutting down\treason=\"SIGTERM\"");
    send(&process, Signal::SIGTERM);
    send(&process, Signal::SIGTERM);
    // Only the deadline of the drain ends it.
    assert_eq!(next(&mut lines), "info\tprocess\tdrained\tend=Forced { cut_off: [\"stuck part\"] }");
    assert_eq!(end(&mut process).code(), Some(3));
}

fn a_second_sigint_ends_it_at_once() {
    let (mut process, mut lines) = start("for ever");
    assert_eq!(next(&mut lines), "info\tprocess\tready");
    send(&process, Signal::SIGINT);
    assert_eq!(next(&mut lines), "info\tprocess\tshutting down\treason=\"SIGINT\"");
    assert!(process.try_wait().unwrap().is_none());
    send(&process, Signal::SIGINT);
    assert_eq!(end(&mut process).code(), Some(0));
}

fn a_standard_output_nobody_reads_stops_nothing() {
    let (mut process, lines) = start("chatty");
    // Far more than the pipe and the queue hold. It ends although nothing is read.
    let status = end(&mut process);
    assert_eq!(status.code(), Some(4));
    // What did come through is whole lines.
    let mut text = String::new();
    lines.into_inner().read_to_string(&mut text).unwrap();
    assert!(text.lines().count() > 100);
    assert!(text.lines().take(100).all(|line| line.ends_with("\tinfo\taccess\tconnection complete\tbytes_sent=1")));
}

fn a_standard_output_that_is_gone_stops_nothing() {
    let (mut process, lines) = start("chatty");
    drop(lines);
    assert_eq!(end(&mut process).code(), Some(4));
}

fn the_message_of_a_panic_is_the_last_line() {
    let (mut process, mut lines) = start("panics");
    assert_eq!(next(&mut lines), "info\tprocess\tbefore");
    let line = next(&mut lines);
    assert!(line.starts_with("error\tpanic\ton purpose\tplace=") && line.ends_with("thread=\"main\""), "{line}");
    assert!(!end(&mut process).success());
}

fn start(part: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--as-child", part]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap());
    (process, lines)
}

/// The next line without its time.
fn next(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim_end().split_once('\t').unwrap_or_default().1.to_owned()
}

fn send(process: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
}

fn end(process: &mut Child) -> ExitStatus {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Makes the wait below return, and the test fail on the status.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let status = process.wait().unwrap();
        drop(done);
        status
    })
}

#[tokio::main(flavor = "current_thread")]
async fn child(part: &str) {
    let options = Options { format: Format::Plain, program: "process", ..Options::default() };
    let telemetry = telemetry::init(&options).unwrap();
    match part {
        "chatty" => {
            let access = telemetry.sink("access");
            let mut batch = Vec::new();
            for _ in 0..1000 {
                let head = access.head(std::time::SystemTime::now(), tracing::Level::INFO);
                let mut line = Line::begin(&mut batch, head, "connection complete");
                line.number("bytes_sent", 1);
                line.end();
            }
            let begin = Instant::now();
            for _ in 0..1000 {
                access.write(&batch, 1000);
            }
            let quick = begin.elapsed() < Duration::from_secs(10);
            // With a reader that stands still this has to give up, and gives the writing thread its turn on a busy machine.
            telemetry.flush(Duration::from_millis(500));
            std::process::exit(if quick && telemetry.dropped() > 0 { 4 } else { 5 });
        }
        "panics" => {
            tracing::info!("before");
            panic!("on purpose");
        }
        _ => {}
    }
    let tasks = Tasks::new();
    let (drainer, draining) = drain();
    let shutdown = Shutdown::listen(&tasks).unwrap();
    let hold = draining.hold(format!("{part} part"));
    let (orderly, for_ever) = (part == "orderly", part == "for ever");
    tasks.spawn("part", async move {
        if orderly {
            draining.started().await;
        } else {
            draining.forced().await;
        }
        drop(hold);
    });
    tracing::info!("ready");
    let reason = shutdown.requested().await;
    tracing::info!(reason, "shutting down");
    let patience = if for_ever { Duration::from_secs(600) } else { Duration::from_millis(500) };
    let end = drainer.drain(patience).await;
    tracing::info!(?end, "drained");
    tasks.finished().await;
    telemetry.flush(PATIENCE);
    std::process::exit(3);
}
