// SPDX-License-Identifier: Apache-2.0
//! Expressions on the wire: nf_tables' attribute encoding, written from the kernel's `nf_tables.h`, both ways.
//!
//! Encoding is exact for what `expression` produces. Decoding accepts whatever the kernel may hold: what we never write becomes [`Expression::Other`].

use super::attributes::{Attributes, number, read, text};
use super::error::RulesError;
use super::expression::{Expression, PORT_IS_GIVEN, Source, Target, Verdict};
use super::rule::Is;

/// A rule's expressions, as the value of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn encode(expressions: &[Expression]) -> Attributes {
    expressions.iter().fold(Attributes::default(), |list, one| {
        let (name, inside) = encode_one(one);
        let inside = Attributes::default().text(EXPR_NAME, &name).nested(EXPR_DATA, &inside);
        list.nested(LIST_ELEMENT, &inside)
    })
}

fn encode_one(one: &Expression) -> (String, Attributes) {
    let empty = Attributes::default();
    let (name, inside) = match one {
        Expression::Load { register, from: Source::Meta(key) } => {
            ("meta", empty.number(META_DREG, *register).number(META_KEY, *key))
        }
        Expression::Load { register, from: Source::Conntrack(key) } => {
            ("ct", empty.number(CT_DREG, *register).number(CT_KEY, *key))
        }
        Expression::Load { register, from: Source::Payload { base, offset, length } } => (
            "payload",
            empty
                .number(PAYLOAD_DREG, *register)
                .number(PAYLOAD_BASE, *base)
                .number(PAYLOAD_OFFSET, *offset)
                .number(PAYLOAD_LEN, *length),
        ),
        Expression::Bitwise { from, to, mask, xor } => (
            "bitwise",
            // A mask is an address long at most.
            empty
                .number(BITWISE_SREG, *from)
                .number(BITWISE_DREG, *to)
                .number(BITWISE_LEN, mask.len() as u32)
                .nested(BITWISE_MASK, &value(mask))
                .nested(BITWISE_XOR, &value(xor)),
        ),
        Expression::Compare { register, is, with } => {
            let operation = match is {
                Is::Equal => CMP_EQ,
                Is::Unequal => CMP_NEQ,
            };
            ("cmp", empty.number(CMP_SREG, *register).number(CMP_OP, operation).nested(CMP_DATA, &value(with)))
        }
        Expression::Immediate { register, value: bytes } => {
            ("immediate", empty.number(IMMEDIATE_DREG, *register).nested(IMMEDIATE_DATA, &value(bytes)))
        }
        Expression::Store { register, to: Target::Meta(key) } => {
            ("meta", empty.number(META_KEY, *key).number(META_SREG, *register))
        }
        Expression::Store { register, to: Target::Conntrack(key) } => {
            ("ct", empty.number(CT_KEY, *key).number(CT_SREG, *register))
        }
        Expression::Store { register, to: Target::ConntrackOriginal(key) } => {
            ("ct", empty.number(CT_KEY, *key).number(CT_SREG, *register).bytes(CT_DIRECTION, &[ORIGINAL]))
        }
        Expression::Redirect { first_port, last_port, flags } => (
            "redir",
            empty.number(REDIR_PROTO_MIN, *first_port).number(REDIR_PROTO_MAX, *last_port).number(REDIR_FLAGS, *flags),
        ),
        Expression::Counter => ("counter", empty),
        Expression::Verdict(verdict) => (
            "immediate",
            empty.number(IMMEDIATE_DREG, VERDICT_REGISTER).nested(IMMEDIATE_DATA, &encode_verdict(verdict)),
        ),
        Expression::Other { name, attributes } => {
            let copied =
                read(attributes).map_while(Result::ok).fold(empty, |list, (kind, bytes)| list.bytes(kind, bytes));
            return (name.clone(), copied);
        }
    };
    (name.to_owned(), inside)
}

fn encode_verdict(verdict: &Verdict) -> Attributes {
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Return => (RETURN, None),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Other { code, chain } => (*code, chain.as_ref()),
    };
    let inside = Attributes::default().bytes(VERDICT_CODE, &code.to_be_bytes());
    let inside = match chain {
        Some(chain) => inside.text(VERDICT_CHAIN, chain),
        None => inside,
    };
    Attributes::default().nested(DATA_VERDICT, &inside)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(DATA_VALUE, bytes)
}

/// Reads the value of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn decode(list: &[u8]) -> Result<Vec<Expression>, RulesError> {
    read(list).map(|element| decode_one(element?.1)).collect()
}

fn decode_one(element: &[u8]) -> Result<Expression, RulesError> {
    let fields = Fields::read(element)?;
    let name = text(fields.bytes(EXPR_NAME).ok_or(RulesError::Malformed { what: "an expression without a name" })?);
    let inside = fields.bytes(EXPR_DATA).unwrap_or_default();
    let known = known(&name, &Fields::read(inside)?)?;
    Ok(known.unwrap_or_else(|| Expression::Other { name, attributes: inside.to_vec() }))
}

/// The expression, if it is of a kind we write.
fn known(name: &str, fields: &Fields<'_>) -> Result<Option<Expression>, RulesError> {
    Ok(match name {
        "meta" => load_or_store(fields, (META_DREG, META_KEY, META_SREG), Source::Meta, Target::Meta)?,
        "ct" => match (fields.bytes(CT_DIRECTION), fields.number(CT_DREG)?) {
            (None, _) => load_or_store(fields, (CT_DREG, CT_KEY, CT_SREG), Source::Conntrack, Target::Conntrack)?,
            (Some([ORIGINAL]), None) => {
                load_or_store(fields, (CT_DREG, CT_KEY, CT_SREG), Source::Conntrack, Target::ConntrackOriginal)?
            }
            // We never ask about one direction.
            _ => None,
        },
        "payload" if fields.bytes(PAYLOAD_SREG).is_none() => {
            let source = (fields.number(PAYLOAD_BASE)?, fields.number(PAYLOAD_OFFSET)?, fields.number(PAYLOAD_LEN)?);
            match (fields.number(PAYLOAD_DREG)?, source) {
                (Some(register), (Some(base), Some(offset), Some(length))) => {
                    Some(Expression::Load { register, from: Source::Payload { base, offset, length } })
                }
                _ => None,
            }
        }
        // Older kernels know only mask and xor and do not say so.
        "bitwise" if fields.number(BITWISE_OP)?.unwrap_or(0) == 0 => {
            match (
                fields.number(BITWISE_SREG)?,
                fields.number(BITWISE_DREG)?,
                fields.data(BITWISE_MASK)?,
                fields.data(BITWISE_XOR)?,
            ) {
                (Some(from), Some(to), Some(mask), Some(xor)) => Some(Expression::Bitwise { from, to, mask, xor }),
                _ => None,
            }
        }
        "cmp" => {
            let is = match fields.number(CMP_OP)? {
                Some(CMP_EQ) => Some(Is::Equal),
                Some(CMP_NEQ) => Some(Is::Unequal),
                _ => None,
            };
            match (fields.number(CMP_SREG)?, is, fields.data(CMP_DATA)?) {
                (Some(register), Some(is), Some(with)) => Some(Expression::Compare { register, is, with }),
                _ => None,
            }
        }
        "immediate" => match fields.number(IMMEDIATE_DREG)? {
            Some(VERDICT_REGISTER) => verdict(fields)?.map(Expression::Verdict),
            Some(register) => fields.data(IMMEDIATE_DATA)?.map(|value| Expression::Immediate { register, value }),
            None => None,
        },
        "redir" => match fields.number(REDIR_PROTO_MIN)? {
            Some(first_port) => Some(Expression::Redirect {
                first_port,
                last_port: fields.number(REDIR_PROTO_MAX)?.unwrap_or(first_port),
                flags: fields.number(REDIR_FLAGS)?.unwrap_or(PORT_IS_GIVEN),
            }),
            None => None,
        },
        "counter" => Some(Expression::Counter),
        _ => None,
    })
}

fn load_or_store(
    fields: &Fields<'_>,
    (load, key, store): (u16, u16, u16),
    source: fn(u32) -> Source,
    target: fn(u32) -> Target,
) -> Result<Option<Expression>, RulesError> {
    Ok(match (fields.number(load)?, fields.number(key)?, fields.number(store)?) {
        (Some(register), Some(key), None) => Some(Expression::Load { register, from: source(key) }),
        (None, Some(key), Some(register)) => Some(Expression::Store { register, to: target(key) }),
        _ => None,
    })
}

fn verdict(fields: &Fields<'_>) -> Result<Option<Verdict>, RulesError> {
    let Some(data) = fields.bytes(IMMEDIATE_DATA) else { return Ok(None) };
    let Some(inside) = Fields::read(data)?.bytes(DATA_VERDICT) else { return Ok(None) };
    let inside = Fields::read(inside)?;
    let Some(code) = inside.number(VERDICT_CODE)? else { return Ok(None) };
    let chain = inside.bytes(VERDICT_CHAIN).map(text);
    Ok(Some(match (code.cast_signed(), chain) {
        (ACCEPT, None) => Verdict::Accept,
        (RETURN, None) => Verdict::Return,
        (JUMP, Some(chain)) => Verdict::Jump(chain),
        (code, chain) => Verdict::Other { code, chain },
    }))
}

/// An attribute list, looked up by kind.
pub(super) struct Fields<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Fields<'a> {
    pub(super) fn read(list: &'a [u8]) -> Result<Self, RulesError> {
        read(list).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(found, _)| *found == kind).map(|(_, bytes)| *bytes)
    }

    pub(super) fn number(&self, kind: u16) -> Result<Option<u32>, RulesError> {
        self.bytes(kind).map(number).transpose()
    }

    pub(super) fn text(&self, kind: u16) -> Option<String> {
        self.bytes(kind).map(text)
    }

    /// The bytes inside a data attribute.
    fn data(&self, kind: u16) -> Result<Option<Vec<u8>>, RulesError> {
        let Some(inside) = self.bytes(kind) else { return Ok(None) };
        Ok(Fields::read(inside)?.bytes(DATA_VALUE).map(<[u8]>::to_vec))
    }
}

// Names and numbers of the kernel's include/uapi/linux/netfilter/nf_tables.h, without the prefix NFTA.
const LIST_ELEMENT: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;
const CT_DIRECTION: u16 = 3;
const CT_SREG: u16 = 4;
/// `IP_CT_DIR_ORIGINAL`
const ORIGINAL: u8 = 0;
const PAYLOAD_DREG: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const PAYLOAD_SREG: u16 = 5;
const BITWISE_SREG: u16 = 1;
const BITWISE_DREG: u16 = 2;
const BITWISE_LEN: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const BITWISE_OP: u16 = 6;
const CMP_SREG: u16 = 1;
const CMP_OP: u16 = 2;
const CMP_DATA: u16 = 3;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const REDIR_PROTO_MIN: u16 = 1;
const REDIR_PROTO_MAX: u16 = 2;
const REDIR_FLAGS: u16 = 3;
const VERDICT_REGISTER: u32 = 0;
const ACCEPT: i32 = libc::NF_ACCEPT;
const RETURN: i32 = libc::NFT_RETURN;
const JUMP: i32 = libc::NFT_JUMP;

#[cfg(test)]
mod tests;
