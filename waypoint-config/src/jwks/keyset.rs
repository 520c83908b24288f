// SPDX-License-Identifier: Apache-2.0
//! What is kept of an answer that should be a JSON Web Key Set (RFC 7517): public keys, and of each only texts that are of use. Equal keys give an equal
//! text, so that nothing is pushed for them. Pure. Called by `fetch`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

/// The keys of an answer.
///
/// # Errors
/// Says why there are none. Nothing of the answer is repeated: whoever names a place must not read here what lies there.
pub(super) fn keys(body: &[u8]) -> Result<Arc<str>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|_| "the answer is no JSON".to_owned())?;
    let list = value.get("keys").and_then(Value::as_array);
    let list = list.ok_or("the answer is no JSON Web Key Set: it has no list `keys`")?;
    if list.len() > MAX_KEYS {
        return Err(format!("the answer has {} keys, more than {MAX_KEYS}", list.len()));
    }
    let kept: Vec<Value> = list.iter().filter_map(public).collect();
    if kept.is_empty() {
        return Err("the answer is a JSON Web Key Set without a public key".to_owned());
    }
    let text = json!({ "keys": kept }).to_string();
    match text.len() > MAX_KEPT {
        true => Err(format!("the keys have {} bytes, more than {MAX_KEPT}", text.len())),
        false => Ok(text.into()),
    }
}

/// Where an issuer's configuration says the keys are.
///
/// # Errors
/// As [`keys`].
pub(super) fn place_of_keys(body: &[u8]) -> Result<String, String> {
    let value: Value = serde_json::from_slice(body).map_err(|_| "the issuer's configuration is no JSON".to_owned())?;
    let place = value.get("jwks_uri").and_then(Value::as_str);
    place.map(str::to_owned).ok_or_else(|| "the issuer's configuration names no `jwks_uri`".to_owned())
}

/// A shared secret that anybody can fetch lets anybody sign.
fn public(key: &Value) -> Option<Value> {
    let kind = key.get("kty")?.as_str()?;
    if !["RSA", "EC", "OKP"].contains(&kind) {
        return None;
    }
    let kept = FIELDS.iter().filter_map(|field| {
        let text = key.get(*field)?.as_str()?;
        Some(((*field).to_owned(), Value::from(text)))
    });
    Some(Value::Object(kept.collect::<Map<_, _>>()))
}

/// What tells a key, and what it is for.
const FIELDS: [&str; 9] = ["alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"];
const MAX_KEYS: usize = 100;
/// In bytes. It becomes part of what every waypoint gets that asks for it.
const MAX_KEPT: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_kept_with_what_tells_them_and_nothing_else() {
        let body = r#"{"extra": 1, "keys": [
            {"kty": "RSA", "n": "a", "e": "AQAB", "kid": "1", "d": "secret", "x5c": ["long"], "alg": 7},
            {"kty": "oct", "k": "c2VjcmV0"}, {"no": "kind"}, 5, {"kty": "EC", "crv": "P-256", "x": "b", "y": "c"}]}"#;
        let kept = keys(body.as_bytes()).unwrap();
        let expected =
            r#"{"keys":[{"e":"AQAB","kid":"1","kty":"RSA","n":"a"},{"crv":"P-256","kty":"EC","x":"b","y":"c"}]}"#;
        assert_eq!(&*kept, expected);
    }

    #[test]
    fn whatever_else_is_answered_is_refused_without_repeating_it() {
        for body in [
            "",
            "<html>SECRET",
            "{}",
            r#"{"keys": "SECRET"}"#,
            r#"{"keys": []}"#,
            r#"{"keys": [{"kty": "oct", "k": "SECRET"}]}"#,
            "[[[[",
        ] {
            let error = keys(body.as_bytes()).unwrap_err();
            assert!(!error.contains("SECRET"), "{error}");
        }
        let many = json!({ "keys": vec![json!({ "kty": "RSA" }); 101] });
        assert!(keys(many.to_string().as_bytes()).is_err());
        let large = json!({ "keys": [{ "kty": "RSA", "n": "a".repeat(MAX_KEPT) }] });
        assert!(keys(large.to_string().as_bytes()).is_err());
        assert!(keys(&b"[".repeat(100_000)).is_err(), "nesting without end");
    }
}
