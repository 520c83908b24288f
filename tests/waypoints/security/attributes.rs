// SPDX-License-Identifier: Apache-2.0
//! Every attribute an AuthorizationPolicy knows: one DENY policy each, all of them in force at once and told apart by a header.

use anyhow::{Context, Result, ensure};
use harness::Bed;
use serde_json::json;

use super::{Ask, Asked, ECHO, authentication, issuer::Issuer, policy, reason, set_up, with_objects};

/// A rule, requests it matches, and such that differ only in what it does not match.
struct Row {
    rule: String,
    matched: Vec<Ask>,
    others: Vec<Ask>,
}

fn from(source: &str, matched: Vec<Ask>, others: Vec<Ask>) -> Row {
    Row { rule: format!("from: [{{source: {{{source}}}}}]"), matched, others }
}

fn to(operation: &str, matched: Vec<Ask>, others: Vec<Ask>) -> Row {
    Row { rule: format!("to: [{{operation: {{{operation}}}}}]"), matched, others }
}

fn when(condition: &str, matched: Vec<Ask>, others: Vec<Ask>) -> Row {
    Row { rule: format!("WHEN {{{condition}}}"), matched, others }
}

fn get(path: &str) -> Ask {
    Ask::path(path)
}

fn client() -> Ask {
    get("/")
}

fn stranger() -> Ask {
    get("/").from("demo/stranger")
}

fn visitor() -> Ask {
    get("/").from("other/visitor")
}

pub(crate) fn each(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    let issuer = Issuer::elliptic("https://one.example")?;
    let mut rows = of_sources(bed)?;
    rows.extend(of_operations());
    rows.extend(of_conditions(bed)?);
    rows.extend(of_tokens(&issuer)?);
    let mut objects =
        authentication("tokens", &format!("{{issuer: 'https://one.example', jwks: '{}'}}", issuer.key_set()?));
    for (number, row) in rows.iter().enumerate() {
        // Each is for requests that say so.
        let own = format!("{{key: 'request.headers[x-row]', values: ['{number}']}}");
        let rule = match row.rule.strip_prefix("WHEN ") {
            Some(condition) => format!("{{when: [{own}, {condition}]}}"),
            None => format!("{{{}, when: [{own}]}}", row.rule),
        };
        objects.push_str(&policy(&format!("row-{number}"), &format!("action: DENY, rules: [{rule}]")));
    }
    // The last of all, by which it is seen that all are there.
    objects.push_str(&policy(
        "z-last",
        "action: DENY, rules: [{when: [{key: 'request.headers[x-row]', values: [last]}]}]",
    ));
    with_objects(bed, &objects, |bed| {
        get("/").with("x-row: last").until(bed, "403")?;
        let mut refused: Vec<(usize, Asked)> = Vec::new();
        let mut wrong = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let header = format!("x-row: {number}");
            for (asks, status) in [(&row.matched, "403"), (&row.others, "200")] {
                for ask in asks {
                    let asked =
                        ask.clone().with(&header).send(bed).with_context(|| format!("row {number}: {}", row.rule))?;
                    if asked.status != status {
                        wrong.push(format!("{status} expected for {} of {ask:?}: {asked:?}", row.rule));
                    } else if status == "403" {
                        refused.push((number, asked));
                    }
                }
            }
        }
        ensure!(wrong.is_empty(), "{} requests are judged otherwise than written:\n{}", wrong.len(), wrong.join("\n"));
        for (number, asked) in refused {
            reason(bed, &asked, &format!("rbac_access_denied_matched_policy[ns[demo]-policy[row-{number}]-rule[0]]"))?;
        }
        Ok(())
    })?;
    get("/").with("x-row: last").until(bed, "200").map(drop)
}

fn of_sources(bed: &Bed) -> Result<Vec<Row>> {
    let own = bed.pod("demo/client")?.v4;
    Ok(vec![
        from("principals: [cluster.local/ns/demo/sa/client]", vec![client()], vec![stranger(), visitor()]),
        from("principals: ['cluster.local/ns/demo/*']", vec![client(), stranger()], vec![visitor()]),
        from("principals: ['*/sa/visitor']", vec![visitor()], vec![client()]),
        from("principals: ['*']", vec![client(), visitor()], vec![]),
        from("notPrincipals: [cluster.local/ns/demo/sa/client]", vec![stranger(), visitor()], vec![client()]),
        from("namespaces: [demo]", vec![client()], vec![visitor()]),
        from("namespaces: ['ot*']", vec![visitor()], vec![client()]),
        from("notNamespaces: [demo]", vec![visitor()], vec![client()]),
        from("serviceAccounts: [demo/client, other/none]", vec![client()], vec![stranger(), visitor()]),
        from("serviceAccounts: [client]", vec![client()], vec![stranger(), visitor()]),
        from("notServiceAccounts: [client]", vec![stranger(), visitor()], vec![client()]),
        from("trustDomains: [cluster.local]", vec![client()], vec![]),
        from("notTrustDomains: [cluster.local]", vec![], vec![client()]),
        from(
            &format!("ipBlocks: [{own}]"),
            vec![client(), client().with("x-forwarded-for: 10.0.0.1")],
            vec![stranger()],
        ),
        from("ipBlocks: [10.0.0.0/8]", vec![client(), stranger()], vec![]),
        from(&format!("notIpBlocks: [{own}/32]"), vec![stranger()], vec![client()]),
        from("remoteIpBlocks: [192.0.2.0/24]", vec![client().with("x-forwarded-for: 192.0.2.7")], vec![client()]),
        from("notRemoteIpBlocks: [192.0.2.0/24]", vec![client()], vec![client().with("x-forwarded-for: 192.0.2.7")]),
        from("namespaces: [demo], notServiceAccounts: [client]", vec![stranger()], vec![client(), visitor()]),
    ])
}

fn of_operations() -> Vec<Row> {
    let host = |host: &str| get("/").with(&format!("host: {host}"));
    let post = || get("/").method("POST");
    vec![
        to(
            "hosts: [shop.example.com]",
            vec![host("shop.example.com"), host("SHOP.example.com:80")],
            vec![client(), host("a.shop.example.com")],
        ),
        to("hosts: ['*.example.com']", vec![host("shop.example.com")], vec![host("example.com"), client()]),
        to("hosts: ['shop.*']", vec![host("shop.example.com")], vec![host("a.shop.example.com")]),
        to("hosts: ['*']", vec![client()], vec![]),
        to("notHosts: [shop.example.com]", vec![client()], vec![host("shop.example.com")]),
        to("ports: ['81']", vec![Ask::url(&format!("{ECHO}:81/"))], vec![client()]),
        to("notPorts: ['81']", vec![client()], vec![Ask::url(&format!("{ECHO}:81/"))]),
        to("methods: [POST, PUT]", vec![post(), get("/").method("PUT")], vec![client()]),
        to("methods: ['P*']", vec![post()], vec![client()]),
        to("notMethods: [GET]", vec![post()], vec![client()]),
        to(
            "paths: [/exact]",
            vec![get("/exact"), get("/exact?a=b")],
            vec![get("/exact/"), get("/exacts"), get("/EXACT")],
        ),
        to("paths: ['/prefix*']", vec![get("/prefix"), get("/prefix/a"), get("/prefixed")], vec![get("/a/prefix")]),
        to("paths: ['*.html']", vec![get("/a/b.html")], vec![get("/a/b.htm")]),
        to("paths: ['*']", vec![get("/")], vec![]),
        to(
            "paths: ['/one/{*}/end']",
            vec![get("/one/x/end")],
            vec![get("/one/x/y/end"), get("/one/end"), get("/one/x")],
        ),
        to("paths: ['/any/{**}']", vec![get("/any/x"), get("/any/x/y/z")], vec![get("/any"), get("/anyx")]),
        to("paths: ['/mix/{*}/{**}/z']", vec![get("/mix/a/b/c/z")], vec![get("/mix/a/b/c")]),
        to("notPaths: ['/open*']", vec![get("/closed")], vec![get("/open/a")]),
        // Written so that a careless comparison lets them through.
        to(
            "paths: ['/admin/*']",
            vec![get("/admin/x"), get("/x/../admin/y"), get("/./admin/y")],
            vec![get("/"), get("/admin/../y")],
        ),
        to("methods: [POST], paths: ['/both']", vec![get("/both").method("POST")], vec![get("/both"), post()]),
    ]
}

fn of_conditions(bed: &Bed) -> Result<Vec<Row>> {
    let own = bed.pod("demo/client")?.v4;
    let header = |value: &str| client().with(&format!("x-a: {value}"));
    Ok(vec![
        when(
            "key: 'request.headers[x-a]', values: [one, two]",
            vec![header("one"), header("two")],
            vec![client(), header("three")],
        ),
        when("key: 'request.headers[X-A]', values: ['pre*']", vec![header("prefix")], vec![header("a-prefix")]),
        when("key: 'request.headers[x-a]', values: ['*fix']", vec![header("suffix")], vec![header("fixed")]),
        when("key: 'request.headers[x-a]', values: ['*']", vec![header("any")], vec![client()]),
        when("key: 'request.headers[x-a]', notValues: [one]", vec![client(), header("two")], vec![header("one")]),
        when("key: 'request.headers[x-a]', notValues: ['*']", vec![client()], vec![header("one")]),
        when(&format!("key: source.ip, values: ['{own}']"), vec![client()], vec![stranger()]),
        when(&format!("key: source.ip, notValues: ['{own}']"), vec![stranger()], vec![client()]),
        when(
            "key: remote.ip, values: [192.0.2.0/24]",
            vec![client().with("x-forwarded-for: 192.0.2.7")],
            vec![client()],
        ),
        when("key: source.namespace, values: [other]", vec![visitor()], vec![client()]),
        when("key: source.namespace, notValues: [other]", vec![client()], vec![visitor()]),
        when("key: source.principal, values: [cluster.local/ns/demo/sa/client]", vec![client()], vec![stranger()]),
        when("key: source.serviceAccount, values: [demo/client]", vec![client()], vec![stranger()]),
        when("key: source.trustDomain, values: [cluster.local]", vec![client()], vec![]),
        when("key: destination.ip, values: [10.96.0.20]", vec![client()], vec![]),
        when("key: destination.ip, values: [10.96.0.10]", vec![], vec![client()]),
        when("key: destination.port, values: ['81']", vec![Ask::url(&format!("{ECHO}:81/"))], vec![client()]),
        // Nobody looks for TLS inside a tunnel: such a rule is enforced without the condition.
        when("key: connection.sni, values: [shop.example.com]", vec![client()], vec![]),
    ])
}

fn of_tokens(issuer: &Issuer) -> Result<Vec<Row>> {
    let with = |claims| Ok::<_, anyhow::Error>(client().bearer(&issuer.token(claims)?));
    let alice = || with(json!({ "sub": "alice" }));
    let bob = || with(json!({ "sub": "bob" }));
    let group = |value: serde_json::Value| with(json!({ "group": value }));
    let nested = |role: &str| with(json!({ "realm": { "role": role } }));
    let claim = |rest: &str| format!("key: 'request.auth.claims{rest}");
    Ok(vec![
        from("requestPrincipals: ['https://one.example/alice']", vec![alice()?], vec![bob()?, client()]),
        from("requestPrincipals: ['https://one.example/*']", vec![alice()?, bob()?], vec![client()]),
        from("requestPrincipals: ['*/bob']", vec![bob()?], vec![alice()?, client()]),
        from("requestPrincipals: ['*']", vec![alice()?], vec![client()]),
        from("notRequestPrincipals: ['*']", vec![client()], vec![alice()?]),
        when("key: request.auth.principal, values: ['https://one.example/alice']", vec![alice()?], vec![bob()?]),
        when(
            "key: request.auth.audiences, values: [shop]",
            vec![with(json!({ "aud": ["bank", "shop"] }))?, with(json!({ "aud": "shop" }))?],
            vec![with(json!({ "aud": "bank" }))?],
        ),
        when(
            "key: request.auth.presenter, values: [app]",
            vec![with(json!({ "azp": "app" }))?],
            vec![with(json!({ "azp": "other" }))?],
        ),
        when(
            &claim("[group]', values: [admins, ops]"),
            vec![group(json!("admins"))?, group(json!(["users", "ops"]))?],
            vec![group(json!("users"))?, client()],
        ),
        when(&claim("[group]', values: ['adm*']"), vec![group(json!(["admins"]))?], vec![group(json!("badm"))?]),
        when(
            &claim("[group]', notValues: [admins]"),
            vec![group(json!("users"))?, client()],
            vec![group(json!(["admins"]))?],
        ),
        when(&claim("[realm][role]', values: [root]"), vec![nested("root")?], vec![nested("user")?]),
        when(
            &claim("[scope]', values: [write]"),
            vec![with(json!({ "scope": "read write" }))?],
            vec![with(json!({ "scope": "read" }))?],
        ),
    ])
}
