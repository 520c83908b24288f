// SPDX-License-Identifier: Apache-2.0
//! Attributes out and in, and bytes nobody should send.

use proptest::prelude::*;

use super::super::expression::lower;
use super::super::plan::{Options, Plan};
use super::*;

fn every_rule() -> Vec<Vec<Expression>> {
    let options = Options {
        dns_capture: true,
        virtual_interfaces: vec!["tap0".to_owned(), "br-*".to_owned()],
        ..Options::default()
    };
    let tables = Plan::new(&options).tables;
    tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules).map(lower).collect()
}

#[test]
fn every_rule_we_plan_is_read_back_as_written() {
    for expressions in every_rule() {
        assert_eq!(decode(encode(&expressions).as_bytes()).unwrap(), expressions);
    }
}

#[test]
fn no_two_rules_of_a_chain_have_the_same_bytes() {
    let mut bytes: Vec<_> =
        every_rule().iter().map(|rule| encode(rule).as_bytes().to_vec()).filter(|rule| rule.len() > 200).collect();
    let all = bytes.len();
    bytes.sort();
    bytes.dedup();
    assert_eq!(bytes.len(), all);
}

/// As `nft` sends `meta l4proto tcp accept`, by the numbers of the kernel's header.
#[test]
fn the_bytes_are_those_of_the_kernel_s_header() {
    let rule = [
        Expression::Load { register: 1, from: Source::Meta(16) },
        Expression::Compare { register: 1, is: Is::Equal, with: vec![6] },
        Expression::Verdict(Verdict::Accept),
    ];
    let expected = [
        // A list element: "meta", key 16 into register 1.
        "24000180", "09000100", "6d657461", "00000000", "14000280", "08000100", "00000001", "08000200", "00000010",
        // A list element: "cmp", register 1 equals the one byte 6.
        "2c000180", "08000100", "636d7000", "20000280", "08000100", "00000001", "08000200", "00000000", "0c000380",
        "05000100", "06000000", // A list element: "immediate", verdict 1 into register 0.
        "30000180", "0e000100", "696d6d65", "64696174", "65000000", "1c000280", "08000100", "00000000", "10000280",
        "0c000280", "08000100", "00000001",
    ];
    let written: Vec<String> = encode(&rule)
        .as_bytes()
        .chunks(4)
        .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    if cfg!(target_endian = "little") {
        assert_eq!(written, expected);
    }
}

#[test]
fn a_counter_s_count_is_no_part_of_a_rule() {
    let counted = Attributes::default()
        .text(EXPR_NAME, "counter")
        .nested(EXPR_DATA, &Attributes::default().bytes(1, &[7; 8]).bytes(2, &[9; 8]));
    let list = Attributes::default().nested(LIST_ELEMENT, &counted);
    assert_eq!(decode(list.as_bytes()).unwrap(), [Expression::Counter]);
}

#[test]
fn what_we_never_write_is_kept_and_differs() {
    let element = |name: &str, inside: &Attributes| {
        let inside = Attributes::default().text(EXPR_NAME, name).nested(EXPR_DATA, inside);
        decode(Attributes::default().nested(LIST_ELEMENT, &inside).as_bytes()).unwrap().remove(0)
    };
    // A shift is not a mask, a range is not a comparison, a goto is not a jump, and a reply's address is not the connection's mark.
    let shift = Attributes::default()
        .number(BITWISE_SREG, 1)
        .number(BITWISE_DREG, 1)
        .number(BITWISE_LEN, 4)
        .number(BITWISE_OP, 1);
    assert!(matches!(element("bitwise", &shift), Expression::Other { .. }));
    let masks = shift.nested(BITWISE_MASK, &value(&[1; 4])).nested(BITWISE_XOR, &value(&[0; 4]));
    assert!(matches!(element("bitwise", &masks), Expression::Other { .. }));
    let written = Attributes::default().number(PAYLOAD_BASE, 2).number(PAYLOAD_OFFSET, 0).number(PAYLOAD_LEN, 2);
    let written = written.number(PAYLOAD_DREG, 1).number(PAYLOAD_SREG, 1);
    assert!(matches!(element("payload", &written), Expression::Other { .. }));
    assert!(matches!(
        element("cmp", &Attributes::default().number(CMP_SREG, 1).number(CMP_OP, 2)),
        Expression::Other { .. }
    ));
    let directed = Attributes::default().number(CT_DREG, 1).number(CT_KEY, 8).bytes(CT_DIRECTION, &[1]);
    assert!(matches!(element("ct", &directed), Expression::Other { .. }));
    let opening = Attributes::default().number(CT_DREG, 1).number(CT_KEY, 8).bytes(CT_DIRECTION, &[ORIGINAL]);
    assert!(matches!(element("ct", &opening), Expression::Other { .. }));
    let answers = Attributes::default().number(CT_KEY, 17).number(CT_SREG, 1).bytes(CT_DIRECTION, &[1]);
    assert!(matches!(element("ct", &answers), Expression::Other { .. }));
    let goto = Attributes::default().number(IMMEDIATE_DREG, 0);
    let verdict = Attributes::default().bytes(VERDICT_CODE, &(-4_i32).to_be_bytes()).text(VERDICT_CHAIN, "there");
    let goto = goto.nested(IMMEDIATE_DATA, &Attributes::default().nested(DATA_VERDICT, &verdict));
    let expected = Expression::Verdict(Verdict::Other { code: -4, chain: Some("there".to_owned()) });
    assert_eq!(element("immediate", &goto), expected);
    let unknown = element("fib", &Attributes::default().number(1, 5));
    assert_eq!(decode(encode(std::slice::from_ref(&unknown)).as_bytes()).unwrap(), [unknown]);
}

#[test]
fn an_older_kernel_s_redirect_says_less_and_means_the_same() {
    let inside = Attributes::default().number(REDIR_PROTO_MIN, 1);
    let element = Attributes::default().text(EXPR_NAME, "redir").nested(EXPR_DATA, &inside);
    let read = decode(Attributes::default().nested(LIST_ELEMENT, &element).as_bytes()).unwrap();
    assert_eq!(read, [Expression::Redirect { first_port: 1, last_port: 1, flags: PORT_IS_GIVEN }]);
}

proptest! {
    #[test]
    fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn damage_ends_without_a_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), which in any::<prop::sample::Index>()) {
        let rules = every_rule();
        let mut bytes = encode(&rules[which.index(rules.len())]).as_bytes().to_vec();
        *at.get_mut(&mut bytes) = to;
        let _ = decode(&bytes);
    }
}
