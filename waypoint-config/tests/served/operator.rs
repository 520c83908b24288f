// SPDX-License-Identifier: Apache-2.0
//! Whatever a mesh configuration file says that we take, a real Envoy takes, too. Bounded here; `PROPTEST_CASES=2000` for longer.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use waypoint_config::{envoy::format, settings::read, view::AppProtocol};

use crate::{
    judge::{envoy, profile, refusal},
    mesh::{add, authorization, empty, rendered, service},
};

/// Pieces of which format strings are made, right and wrong ones.
const PIECES: [&str; 28] = [
    "%",
    "%%",
    "REQ",
    "RESP",
    "TRAILER",
    "START_TIME",
    "FILTER_STATE",
    "DYNAMIC_METADATA",
    "UPSTREAM_METADATA",
    "PROTOCOL",
    "DURATION",
    "(",
    ")",
    "?",
    ":",
    ":AUTHORITY",
    "X-A",
    "a.b",
    "c",
    "PLAIN",
    "TYPED",
    "10",
    "%Y-%m",
    "%f",
    "%3f",
    " ",
    "\"",
    "\n",
];

fn any_format() -> impl Strategy<Value = String> {
    let of_pieces = vec(select(PIECES.to_vec()), 0..8).prop_map(|pieces| pieces.concat());
    let header = ("[A-Za-z:._-]{0,6}", "[A-Za-z:?._-]{0,6}", "(:[0-9]{0,7})?");
    let of_header = header.prop_map(|(one, other, length)| format!("%REQ({one}?{other}){length}%"));
    let of_place =
        "[a-z.:/|-]{0,10}".prop_map(|place| format!("%DYNAMIC_METADATA({place})% %UPSTREAM_METADATA({place})%"));
    let of_state = "[a-z.:|-]{0,8}(:PLAIN|:TYPED|:FIELD|:)?".prop_map(|key| format!("%FILTER_STATE({key})%"));
    let of_time = "[%A-Za-z0-9 :._+-]{0,8}".prop_map(|time| format!("%START_TIME({time})%"));
    prop_oneof![of_pieces, of_header, of_place, of_state, of_time, any::<String>()]
}

fn text() -> impl Strategy<Value = String> {
    let known = [
        "",
        "a",
        "a.b",
        "authz.demo.svc.cluster.local",
        "10.0.0.1",
        "::1",
        "/check",
        "/a b",
        "x-a",
        "*",
        "x-*",
        "*-a",
        "a*b",
        ":path",
        "5s",
        "0s",
        "24h",
        "0.0000001s",
    ];
    prop_oneof![4 => select(known.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

fn authorizer() -> impl Strategy<Value = Value> {
    let lists = vec(vec(text(), 0..3), 5);
    let numbers = (0_u32..70_000, prop_oneof![Just(0_u32), 1_u32..=u32::MAX], 0_u16..700);
    (any::<bool>(), vec(text(), 5), lists, numbers, any::<[bool; 3]>()).prop_map(|(http, texts, lists, (port, bytes, status), flags)| {
        let [service, timeout, prefix, header, value]: [_; 5] = texts.try_into().unwrap();
        let [seen, more, up, deny, allow]: [_; 5] = lists.try_into().unwrap();
        let mut all = json!({
            "service": service, "port": port, "timeout": timeout, "failOpen": flags[0], "statusOnError": status.to_string(),
            "includeRequestBodyInCheck": { "maxRequestBytes": bytes, "allowPartialMessage": flags[1], "packAsBytes": flags[2] },
        });
        if !http {
            return json!({ "envoyExtAuthzGrpc": all });
        }
        let of_http = json!({
            "pathPrefix": prefix, "includeHeadersInCheck": seen, "includeRequestHeadersInCheck": more, "headersToUpstreamOnAllow": up,
            "headersToDownstreamOnDeny": deny, "headersToDownstreamOnAllow": allow, "includeAdditionalHeadersInCheck": { header: value },
        });
        all.as_object_mut().unwrap().extend(of_http.as_object().unwrap().clone());
        json!({ "envoyExtAuthzHttp": all })
    })
}

fn file() -> impl Strategy<Value = Value> {
    (authorizer(), vec(text(), 4), any_format(), -1.0..101.0).prop_map(|(mut authorizer, texts, format, sampling)| {
        let [connect, detect, alias, collector]: [_; 4] = texts.try_into().unwrap();
        authorizer["name"] = "x".into();
        json!({
            "connectTimeout": connect, "protocolDetectionTimeout": detect, "trustDomainAliases": [alias],
            "accessLogFile": "/dev/stdout", "accessLogFormat": format, "enableTracing": true, "defaultConfig": { "tracing": { "sampling": sampling } },
            "extensionProviders": [authorizer, { "name": "y", "opentelemetry": { "service": collector, "port": 1 } }],
        })
    })
}

/// Without the fields that make it wrong, until it is right: most of what is drawn is wrong somewhere.
fn mended(mut file: Value) -> Option<(Value, waypoint_config::settings::Reading)> {
    for _ in 0..24 {
        let error = match read(file.to_string().as_bytes()) {
            Ok(reading) => return Some((file, reading)),
            Err(error) => error,
        };
        let named = error.split([':', '[', ' ']).next().unwrap_or_default().to_owned();
        let last = error.split(": ").next().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        let last = last.split(['[', ':']).next().unwrap_or_default().to_owned();
        let inside = file["extensionProviders"][0]
            .as_object_mut()
            .into_iter()
            .flat_map(Map::values_mut)
            .find_map(Value::as_object_mut);
        let usual = |field: &str| match field {
            "service" => json!("authz.example.com"),
            "port" => json!(9000),
            "includeRequestBodyInCheck" | "maxRequestBytes" => Value::Null,
            _ => Value::Null,
        };
        let gone = inside.and_then(|inside| {
            let key = if last == "maxRequestBytes" { "includeRequestBodyInCheck" } else { last.as_str() };
            inside.get_mut(key).map(|value| *value = usual(key))
        });
        if gone.is_none() {
            match named.as_str() {
                "extensionProviders" => {
                    file["extensionProviders"][1]["opentelemetry"]["service"] = json!("collector.example.com")
                }
                "defaultConfig.tracing.sampling" => file["defaultConfig"] = Value::Null,
                field => file[field] = Value::Null,
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Hundreds of formats for one look by Envoy.
    #[test]
    fn whatever_format_passes_our_check_envoy_takes_it(formats in vec(any_format(), 200)) {
        let good = formats.into_iter().filter(|format| format::check(format).is_ok());
        let fields: Map<String, Value> = good.enumerate().map(|(number, format)| (number.to_string(), format.into())).collect();
        prop_assert!(fields.len() > 5, "nothing passes");
        let text = json!({ "accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": Value::Object(fields).to_string() });
        let reading = read(text.to_string().as_bytes()).map_err(TestCaseError::fail)?;
        let mut serving = empty();
        add(&mut serving, service("cart", "10.96.0.10", &[(80, AppProtocol::Http11)]), "10.0.0.1");
        serving.settings = Arc::new(reading.settings);
        if envoy().is_some() {
            prop_assert_eq!(refusal("formats", rendered(&serving, profile()).resources()), None);
        }
    }

    #[test]
    fn whatever_file_we_take_envoy_takes_what_is_made_of_it(file in file()) {
        let Some((file, reading)) = mended(file) else { return Err(TestCaseError::reject("not mended")) };
        let mut serving = empty();
        add(&mut serving, service("cart", "10.96.0.10", &[(80, AppProtocol::Http11)]), "10.0.0.1");
        serving.access.authorization = vec![authorization("custom", "{action: CUSTOM, provider: {name: x}, rules: [{}]}")];
        prop_assert!(reading.settings.authorizers.contains_key("x"), "{}", file);
        serving.settings = Arc::new(reading.settings);
        if envoy().is_some() {
            let refused = refusal("operator", rendered(&serving, profile()).resources());
            prop_assert!(refused.is_none(), "{:?} of {}", refused, file);
        }
    }

    #[test]
    fn no_bytes_make_reading_a_file_panic(bytes in vec(any::<u8>(), 0..200), text in "\\PC{0,60}") {
        let _ = read(&bytes);
        let _ = read(text.as_bytes());
    }
}
