// SPDX-License-Identifier: Apache-2.0
//! Policies at the waypoint: which requests are refused, and how one learns why.

use std::fs;

use anyhow::{Context, Result};
use harness::{tokens::Issuer, wait};
use serde_json::{Value, json};

use super::URL;
use crate::{
    report::{Report, expect},
    story::Story,
};

const DENY: &str = include_str!("deny.yaml");
const TOKEN: &str = include_str!("token.yaml");
/// Who signs the tokens of the shop's customers.
const ISSUER: &str = "https://accounts.example";

/// The end of the waypoint's log now.
fn mark(story: &Story) -> Result<usize> {
    Ok(usize::try_from(fs::metadata(story.mesh.program("shop-waypoint-0")?.log())?.len())?)
}

/// What the waypoint logged of a request behind `mark`.
fn logged(story: &Story, mark: usize, matches: impl Fn(&Value) -> bool) -> Result<Value> {
    let log = story.mesh.program("shop-waypoint-0")?.log().to_owned();
    wait::until("the waypoint to log a request", wait::PATIENCE, || {
        let bytes = fs::read(&log)?;
        let text = String::from_utf8_lossy(bytes.get(mark..).unwrap_or_default()).into_owned();
        let found = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| matches(line));
        found.context("no such line")
    })
}

pub(super) fn deny(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl apply -f deny.yaml:  DENY method DELETE on /admin*, AUDIT everything (so that it is logged)");
    let (admin, delete) = (format!("{URL}admin/users"), ["-X", "DELETE"]);
    let show = |story: &Story| {
        let refused = [&delete[..], &[admin.as_str()]].concat();
        story.ask_until(&refused, "RBAC: access denied 403")?;
        let mark = mark(story)?;
        let said = story.ask(&refused)?;
        report.say(format!("in pod client on n1:  curl -X DELETE {admin}\n  -> {}", said.stdout.trim()));
        let line = logged(story, mark, |line| line["method"] == "DELETE" && line["response_code"] == 403)?;
        let reason = line["response_code_details"].as_str().unwrap_or_default();
        report.say(format!("access log of the waypoint: {reason}\n  from {}", text(&line["source_identity"])));
        report.detail(&line);
        expect("the policy's name in the reason", reason, reason.contains("no-deletions"))?;
        for others in [vec![admin.as_str()], [&delete[..], &[URL]].concat()] {
            let said = story.ask(&others)?;
            expect("other requests to be served", said.story(), said.stdout.trim() == "web through 200")?;
        }
        report.say("GET of that path and DELETE of other paths are served as before");
        Ok(())
    };
    story.with_objects(DENY, show)?;
    story.ask_until(&["-X", "DELETE", &format!("{URL}admin/users")], "web through 200")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn token(story: &mut Story, report: &mut Report) -> Result<()> {
    let (issuer, stranger) = (Issuer::create()?, Issuer::create()?);
    let objects = TOKEN.replace("KEYS", &serde_json::to_string(&issuer.key_set()?.to_string())?);
    let claims = json!({ "iss": ISSUER, "sub": "ada" });
    let headers = |issuer: &Issuer, claims: &Value| -> Result<String> {
        Ok(format!("authorization: Bearer {}", issuer.sign(claims)?))
    };
    let (good, forged) = (headers(&issuer, &claims)?, headers(&stranger, &claims)?);
    let foreign = headers(&issuer, &json!({ "iss": "https://elsewhere.example", "sub": "ada" }))?;
    report.say(format!("kubectl apply -f token.yaml:  RequestAuthentication of {ISSUER} with its keys, ALLOW requestPrincipals [\"{ISSUER}/*\"]"));
    let show = |story: &Story| {
        story.ask_until(&[URL], "RBAC: access denied 403")?;
        let mark = mark(story)?;
        for (what, header, wanted) in [
            ("without a token", None, "RBAC: access denied 403"),
            ("with one somebody else signed", Some(&forged), "Jwt verification fails 401"),
            ("with one of another issuer", Some(&foreign), "Jwt issuer is not configured 401"),
            ("with a good one", Some(&good), "web through 200"),
        ] {
            let said = match header {
                Some(header) => story.ask(&["-H", header, URL])?,
                None => story.ask(&[URL])?,
            };
            report.say(format!("{what:<30} -> {}", said.stdout.trim()));
            expect(wanted, said.story(), said.stdout.trim() == wanted)?;
        }
        // A request with a bad token does not come as far as the policy that has it logged.
        let line = logged(story, mark, |line| line["method"] == "GET" && line["response_code"] == 403)?;
        let reason = text(&line["response_code_details"]);
        report.say(format!("access log of the waypoint for the first: {reason}, for no ALLOW policy matched"));
        report.detail(&line);
        expect("the reason of a request that nothing allows", reason, reason.contains("rbac_access_denied"))
    };
    story.with_objects(&objects, show)?;
    story.ask_until(&[URL], "web through 200")
}
