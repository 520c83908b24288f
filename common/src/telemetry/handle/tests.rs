// SPDX-License-Identifier: Apache-2.0
//! What ends up on standard output.

use std::sync::mpsc;

use super::*;

struct Output(mpsc::Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work` with logging and gives back the lines, each without its time.
fn logged(format: Format, filter: &str, work: impl FnOnce(&Handle)) -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    let options = Options { format, filter: filter.to_owned(), quiet: "quiet=off", program: "mesh_common" };
    let (handle, subscriber) = build(&options, Output(sender)).unwrap();
    tracing::subscriber::with_default(subscriber, || work(&handle));
    assert!(handle.flush(Duration::from_secs(20)));
    let bytes: Vec<u8> = receiver.try_iter().flatten().collect();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| without_time(format, line)).collect()
}

fn without_time(format: Format, line: &str) -> String {
    match format {
        Format::Plain => line.split_once('\t').unwrap().1.to_owned(),
        Format::Json => {
            let (head, rest) = line.split_once("\"time\":\"").unwrap();
            format!("{head}{}", rest.split_once("\",").unwrap().1)
        }
    }
}

fn some_events() {
    let outer = tracing::info_span!("outer", wl = "default/client", id = tracing::field::Empty);
    let _entered = outer.enter();
    tracing::info!(target: "mesh_common::x", address = %"0.0.0.0:15008", component = "inbound", transparent = true, "listener established");
    outer.record("id", 1);
    let _inner = tracing::info_span!("inner").entered();
    tracing::warn!(target: "other", count = -3i64, ratio = 0.5, nan = f64::NAN, kind = ?Some("x"), r#type = "t", "odd {}", "one");
    let error = io::Error::new(io::ErrorKind::NotFound, "no such pod");
    let chain = InitError::Thread(error);
    tracing::error!(target: "other", error = &chain as &dyn std::error::Error);
}

#[test]
fn plain_lines_have_scope_spans_message_and_fields() {
    assert_eq!(
        logged(Format::Plain, "", |_| some_events()),
        [
            "info\tx:outer{wl=\"default/client\"}\tlistener established\taddress=0.0.0.0:15008 component=\"inbound\" transparent=true",
            "warn\tother:outer{wl=\"default/client\" id=1}:inner\todd one\tcount=-3 ratio=0.5 nan=NaN kind=Some(\"x\") type=\"t\"",
            "error\tother:outer{wl=\"default/client\" id=1}:inner\t\terror=cannot start the thread that writes the log: check the limit on processes: no such pod",
        ]
    );
}

#[test]
fn json_lines_have_flat_fields_and_then_the_spans() {
    assert_eq!(
        logged(Format::Json, "", |_| some_events()),
        [
            r#"{"level":"info","scope":"mesh_common::x","message":"listener established","address":"0.0.0.0:15008","component":"inbound","transparent":true,"outer":{"wl":"default/client"}}"#,
            r#"{"level":"warn","scope":"other","message":"odd one","count":-3,"ratio":0.5,"nan":"NaN","kind":"Some(\"x\")","type":"t","outer":{"wl":"default/client","id":1},"inner":{}}"#,
            r#"{"level":"error","scope":"other","message":"","error":"cannot start the thread that writes the log: check the limit on processes: no such pod","outer":{"wl":"default/client","id":1},"inner":{}}"#,
        ]
    );
}

#[test]
fn the_filter_of_the_start_is_quiet_then_info_then_the_users() {
    logged(Format::Plain, "access=debug", |handle| assert_eq!(handle.filter(), "quiet=off,info,access=debug"));
    let options = Options { filter: "nonsense".to_owned(), ..Options::default() };
    assert!(matches!(build(&options, io::sink()), Err(InitError::Filter(_))));
}

#[test]
fn the_filter_changes_at_run_time() {
    let lines = logged(Format::Plain, "", |handle| {
        let say = |text: &str| tracing::debug!(target: "part", "{text}");
        say("hidden");
        assert_eq!(handle.change_filter("part=debug", false).unwrap(), "quiet=off,info,part=debug");
        say("shown");
        assert!(handle.change_filter("part:trace", true).is_err());
        say("shown still");
        assert_eq!(handle.change_filter("", true).unwrap(), "quiet=off,info");
        say("hidden again");
        assert_eq!(handle.change_filter("debug", true).unwrap(), "quiet=off,debug");
        say("shown again");
    });
    assert_eq!(lines, ["debug\tpart\tshown", "debug\tpart\tshown still", "debug\tpart\tshown again"]);
}

#[test]
fn a_sink_obeys_the_filter_of_its_target_and_looks_like_an_event() {
    let lines = logged(Format::Plain, "access=info", |handle| {
        let access = handle.sink("access");
        assert!(access.is_enabled(Level::ERROR) && access.is_enabled(Level::INFO) && !access.is_enabled(Level::DEBUG));
        let mut batch = Vec::new();
        for number in 0..2 {
            let head = access.head(SystemTime::now(), Level::INFO);
            let mut line = Line::begin(&mut batch, head, "connection complete");
            line.number("bytes_sent", number);
            line.end();
        }
        access.write(&batch, 2);
        tracing::info!(target: "access", bytes_sent = 2, "connection complete");
        handle.change_filter("access=off", false).unwrap();
        assert!(!access.is_enabled(Level::ERROR));
        handle.change_filter("access=debug", false).unwrap();
        assert!(access.is_enabled(Level::DEBUG));
        assert_eq!(handle.dropped(), 0);
    });
    assert_eq!(
        lines,
        [
            "info\taccess\tconnection complete\tbytes_sent=0",
            "info\taccess\tconnection complete\tbytes_sent=1",
            "info\taccess\tconnection complete\tbytes_sent=2"
        ]
    );
}

#[test]
fn a_value_that_logs_while_it_is_printed_does_not_get_stuck() {
    struct Chatty;
    impl std::fmt::Display for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::info!(target: "inner", "inside");
            f.write_str("value")
        }
    }
    let mut lines = logged(Format::Plain, "", |_| tracing::info!(target: "outer", chatty = %Chatty, "outside"));
    lines.sort();
    assert!(lines.contains(&"info\touter\toutside\tchatty=value".to_owned()), "{lines:?}");
}
