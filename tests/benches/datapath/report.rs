// SPDX-License-Identifier: Apache-2.0
//! What a run says: a table for people, Markdown for the README, JSON for programs.

use std::{fmt::Write as _, fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    case::{Case, Subject, Variant},
    measure::Pace,
    results::{Pick, Resident, Results},
    target::{Verdict, judge},
};

/// What was run and where.
pub(crate) struct Run {
    pub(crate) rounds: usize,
    pub(crate) pace: Pace,
    pub(crate) profile: String,
    /// Variants that could not run here, and why.
    pub(crate) skipped: Vec<(Variant, String)>,
}

/// The kind of machine this is.
pub(crate) fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| Some(line.split_once(':')?.1.trim()))
        .unwrap_or("unknown processor");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    format!(
        "{cores} cores, {model}, Linux {}, congestion control {}",
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/net/ipv4/tcp_congestion_control")
    )
}

/// What our proxies hold before any load.
fn resident(results: &Results) -> Option<String> {
    let megabytes =
        |of: &[u64]| of.iter().map(|bytes| format!("{:.1} MB", *bytes as f64 / 1e6)).collect::<Vec<_>>().join(" and ");
    let Resident { without_pods, with_pods } = results.resident.as_ref()?;
    Some(format!(
        "Our proxies (the client's and the server's) have {} in memory (RSS) without pods, and {} with their pods enrolled and before any load.",
        megabytes(without_pods),
        megabytes(with_pods)
    ))
}

/// One number of a case as people read it, with its unit.
fn shown(case: &Case, column: Column, value: f64) -> String {
    match (column, case.subject) {
        (Column::Rate, Subject::Bulk) => format!("{value:.2} Gb/s"),
        (Column::Rate, _) => format!("{value:.0}/s"),
        (Column::Cpu, Subject::Bulk) => format!("{value:.2} s/GB"),
        (Column::Cpu, _) => format!("{:.1} us/op", value * 1e6),
        (Column::P50 | Column::P99, _) => format!("{:.0} us", value * 1e6),
        (Column::User, _) => format!("{:.0} %", value * 100.0),
        (Column::HeldClient | Column::HeldServer, _) => format!("{value:.0} B"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Rate,
    P50,
    P99,
    Cpu,
    User,
    HeldClient,
    HeldServer,
}

impl Column {
    fn pick(self) -> Pick {
        match self {
            Self::Rate => |sample| sample.rate,
            Self::P50 => |sample| sample.p50,
            Self::P99 => |sample| sample.p99,
            Self::Cpu => |sample| sample.cpu,
            Self::User => |sample| sample.user,
            Self::HeldClient => |sample| sample.held[0],
            Self::HeldServer => |sample| sample.held[1],
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Cpu => "CPU, both proxies",
            Self::User => "of it user",
            Self::HeldClient => "client's proxy",
            Self::HeldServer => "server's proxy",
        }
    }

    fn of(subject: Subject) -> &'static [Self] {
        match subject {
            Subject::Bulk => &[Self::Rate, Self::Cpu, Self::User],
            Subject::Operations => &[Self::Rate, Self::P50, Self::P99, Self::Cpu, Self::User],
            Subject::Held => &[Self::HeldClient, Self::HeldServer],
        }
    }
}

/// The number, and in parentheses its ratio to the baseline's.
fn cell(results: &Results, (place, case): (usize, &Case), variant: Variant, column: Column) -> String {
    let Some(value) = results.median(place, variant, column.pick()) else { return String::new() };
    if value == 0.0 {
        return "-".to_owned();
    }
    let text = shown(case, column, value);
    match results.ratio(place, (variant, Variant::Baseline), column.pick()) {
        Some(ratio) if variant != Variant::Baseline && column != Column::User => format!("{text} ({ratio:.2}x)"),
        _ => text,
    }
}

/// The table for people.
pub(crate) fn table(results: &Results, run: &Run) -> String {
    let mut text = format!("\n{}; {} programs\n{}\n", machine(), run.profile, how(run));
    for (place, case) in results.cases() {
        let columns = Column::of(case.subject);
        let _ = write!(text, "\n{:<11}", case.name);
        for column in columns {
            let _ = write!(text, "{:>22}", column.title());
        }
        let _ = writeln!(text, "   {}", case.meaning);
        for variant in results.variants(place) {
            let _ = write!(text, "  {variant:<9}");
            for column in columns {
                let _ = write!(text, "{:>22}", cell(results, (place, case), variant, *column));
            }
            let failures: f64 = results.samples(place, variant).iter().map(|sample| sample.failures).sum();
            let note = if failures > 0.0 { format!("   {failures:.0} connections failed") } else { String::new() };
            let _ = writeln!(text, "{note}");
        }
    }
    let verdicts = judge(results);
    if !verdicts.is_empty() {
        let _ = writeln!(text, "\ntargets (ours)");
        for Verdict { case, what, wanted, seen, unit, holds } in &verdicts {
            let mark = if *holds { "reached" } else { "MISSED" };
            let seen = if *unit == "x" { format!("{seen:.2}x") } else { format!("{seen:.0}{unit}") };
            let _ = writeln!(text, "  {mark:<8} {case:<11}{what:<50} {seen:>9}   {wanted}");
        }
    }
    let _ = writeln!(
        text,
        "\nIn parentheses: over the baseline's median. At most {:.0} % of a window was taken by the host; the mesh's programs used at most {:.1} % of a \
         core while another variant was measured, and the other proxies were stopped meanwhile. What the kernel does in ksoftirqd for a proxy is not charged to it.",
        results.largest(|sample| sample.stolen) * 100.0,
        results.largest(|sample| sample.bystanders) * 100.0
    );
    if let Some(resident) = resident(results) {
        let _ = writeln!(text, "{resident}");
    }
    if run.pace.window < Duration::from_secs(1) {
        text.push_str(
            "These windows are too short for figures to mean anything: the run only shows that the bench works.\n",
        );
    }
    for (variant, why) in &run.skipped {
        let _ = writeln!(text, "{variant} was skipped: {why}");
    }
    text
}

fn how(run: &Run) -> String {
    format!(
        "medians of {} rounds, in each of which every case is measured on all variants one after the other for {:.1} s after {:.1} s of warm-up",
        run.rounds,
        run.pace.window.as_secs_f32(),
        run.pace.warm_up.as_secs_f32()
    )
}

/// Markdown: the same medians with one line for each case.
pub(crate) fn markdown(results: &Results, run: &Run) -> String {
    let mut text = format!(
        "{}; {} programs; {}. In each cell: throughput and CPU of both proxies; or rate, p50 / p99, and CPU of both proxies; or memory of the client's and of the \
         server's proxy. The last two columns: ratios of rate and of CPU, or of memory.\n\n",
        machine(),
        run.profile,
        how(run)
    );
    text.push_str(
        "| case | direct | baseline | Envoy | ours | ours / baseline | ours / Envoy |\n|---|---|---|---|---|---|---|\n",
    );
    for (place, case) in results.cases() {
        let value = |variant, column: Column| match results.median(place, variant, column.pick()) {
            Some(value) if value != 0.0 => Some(shown(case, column, value)),
            _ => None,
        };
        let cell = |variant| {
            let latency = Option::zip(value(variant, Column::P50), value(variant, Column::P99));
            let all = [
                value(variant, Column::Rate),
                latency.map(|(p50, p99)| format!("{p50} / {p99}")),
                value(variant, Column::Cpu),
                value(variant, Column::HeldClient),
                value(variant, Column::HeldServer),
            ];
            all.into_iter().flatten().collect::<Vec<_>>().join(", ")
        };
        let ratios = |other| {
            let ratio = |column: Column| results.ratio(place, (Variant::Ours, other), column.pick());
            let all = [Column::Rate, Column::Cpu, Column::HeldClient, Column::HeldServer].map(ratio);
            all.into_iter().flatten().map(|ratio| format!("{ratio:.2}x")).collect::<Vec<_>>().join(", ")
        };
        let cells = [
            format!("**{}** {}", case.name, case.meaning),
            cell(Variant::Direct),
            cell(Variant::Baseline),
            cell(Variant::Envoy),
            cell(Variant::Ours),
            ratios(Variant::Baseline),
            ratios(Variant::Envoy),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    if let Some(resident) = resident(results) {
        let _ = writeln!(text, "\n{resident}");
    }
    text
}

/// All of it for programs: medians in units without prefixes, every sample, the targets.
pub(crate) fn document(results: &Results, run: &Run) -> Value {
    let mut cases = serde_json::Map::new();
    for (place, case) in results.cases() {
        let mut variants = serde_json::Map::new();
        for variant in results.variants(place) {
            let median = |pick: Pick| results.median(place, variant, pick).unwrap_or_default();
            let ratios = |pick: Pick| {
                let over = |other| results.ratio(place, (variant, other), pick);
                json!({ "direct": over(Variant::Direct), "baseline": over(Variant::Baseline), "envoy": over(Variant::Envoy) })
            };
            let mut entry = match case.subject {
                Subject::Held => json!({
                    "client_bytes_per_connection": median(|sample| sample.held[0]),
                    "server_bytes_per_connection": median(|sample| sample.held[1]),
                    "ratios": { "client": ratios(|sample| sample.held[0]), "server": ratios(|sample| sample.held[1]) },
                }),
                Subject::Bulk | Subject::Operations => json!({
                    "rate": median(|sample| sample.rate),
                    "p50_seconds": median(|sample| sample.p50),
                    "p99_seconds": median(|sample| sample.p99),
                    "cpu_seconds_per_unit": median(|sample| sample.cpu),
                    "cpu_user_share": median(|sample| sample.user),
                    "client_proxy_cpu_per_unit": median(|sample| sample.sides[0]),
                    "server_proxy_cpu_per_unit": median(|sample| sample.sides[1]),
                    "failures": median(|sample| sample.failures),
                    "ratios": { "rate": ratios(|sample| sample.rate), "cpu": ratios(|sample| sample.cpu), "p50": ratios(|sample| sample.p50), "p99": ratios(|sample| sample.p99) },
                }),
            };
            let samples = results.samples(place, variant).iter().map(|sample| {
                json!({
                    "rate": sample.rate, "cpu": sample.cpu, "user_share": sample.user, "p50": sample.p50, "p99": sample.p99,
                    "held": sample.held, "failures": sample.failures, "stolen_share": sample.stolen, "bystanders": sample.bystanders,
                })
            });
            entry["samples"] = samples.collect();
            variants.insert(variant.name().to_owned(), entry);
        }
        let unit = match case.subject {
            Subject::Bulk => "Gb/s; unit of CPU: 10^9 bytes",
            Subject::Operations => "operations/s; unit of CPU: one operation",
            Subject::Held => "bytes",
        };
        cases.insert(case.name.to_owned(), json!({ "meaning": case.meaning, "unit": unit, "variants": variants }));
    }
    let verdicts: Vec<Value> = judge(results)
        .into_iter()
        .map(|verdict| {
            json!({ "case": verdict.case, "what": verdict.what, "wanted": verdict.wanted, "seen": verdict.seen, "reached": verdict.holds })
        })
        .collect();
    let skipped: Vec<Value> =
        run.skipped.iter().map(|(variant, why)| json!({ "variant": variant.name(), "why": why })).collect();
    json!({
        "machine": machine(), "profile": run.profile, "rounds": run.rounds, "seconds": run.pace.window.as_secs_f64(),
        "resident_bytes": results.resident.as_ref().map(|resident| json!({
            "without_pods": resident.without_pods, "with_pods": resident.with_pods,
        })),
        "cases": cases, "targets": verdicts, "skipped": skipped,
    })
}
