//! Expressions as attributes of a message: each has a name, and attributes that are its own.

use super::rule::{Expr, Register, Verdict};
use crate::netlink::message::Attributes;

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 1 << 1;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const LOOKUP_INVERTED: u32 = 1;
const NAT_RANDOM_FULLY: u32 = 1 << 4;

/// Writes one expression as an item of a list.
pub(super) fn write(item: &mut Attributes<'_>, expr: &Expr) {
    let (name, values): (&str, Vec<(u16, Value<'_>)>) = match expr {
        Expr::Meta(key, to) => ("meta", vec![(1, Value::Number(to.number())), (2, Value::Number(*key as u32))]),
        Expr::Payload(base, offset, length, to) => (
            "payload",
            vec![
                (1, Value::Number(to.number())),
                (2, Value::Number(*base as u32)),
                (3, Value::Number(*offset)),
                (4, Value::Number(*length)),
            ],
        ),
        Expr::And(register, mask) => (
            "bitwise",
            vec![
                (1, Value::Number(register.number())),
                (2, Value::Number(register.number())),
                (3, Value::Number(mask.len() as u32)),
                (4, Value::Data(mask)),
                (5, Value::Zeros(mask.len())),
            ],
        ),
        Expr::Equal(register, value) => ("cmp", compare(*register, libc::NFT_CMP_EQ, value)),
        Expr::Differ(register, value) => ("cmp", compare(*register, libc::NFT_CMP_NEQ, value)),
        Expr::Map(name, key, to) => {
            ("lookup", vec![(1, Value::Text(name)), (2, Value::Number(key.number())), (3, Value::Number(to.number()))])
        }
        Expr::Set(name, key) => ("lookup", vec![(1, Value::Text(name)), (2, Value::Number(key.number()))]),
        Expr::NotSet(name, key) => (
            "lookup",
            vec![(1, Value::Text(name)), (2, Value::Number(key.number())), (5, Value::Number(LOOKUP_INVERTED))],
        ),
        Expr::DestinationType(to) => (
            "fib",
            vec![
                (1, Value::Number(to.number())),
                (2, Value::Number(FIB_RESULT_ADDRESS_TYPE)),
                (3, Value::Number(FIB_OF_DESTINATION)),
            ],
        ),
        Expr::ConnectionState(to) => ("ct", vec![(1, Value::Number(to.number())), (2, Value::Number(CT_STATE))]),
        Expr::ConnectionStatus(to) => ("ct", vec![(1, Value::Number(to.number())), (2, Value::Number(CT_STATUS))]),
        Expr::Masquerade => ("masq", vec![(1, Value::Number(NAT_RANDOM_FULLY))]),
        Expr::Dnat { family, address, port } => (
            "nat",
            vec![
                (1, Value::Number(libc::NFT_NAT_DNAT as u32)),
                (2, Value::Number(*family as u32)),
                (3, Value::Number(address.number())),
                (5, Value::Number(port.number())),
            ],
        ),
        Expr::Verdict(verdict) => {
            ("immediate", vec![(1, Value::Number(libc::NFT_REG_VERDICT as u32)), (2, Value::Verdict(verdict))])
        }
    };
    item.put_str(EXPR_NAME, name);
    item.nest(EXPR_DATA, |data| values.iter().for_each(|(kind, value)| value.write(*kind, data)));
}

fn compare(register: Register, operator: i32, value: &[u8]) -> Vec<(u16, Value<'_>)> {
    vec![(1, Value::Number(register.number())), (2, Value::Number(operator as u32)), (3, Value::Data(value))]
}

/// An attribute of an expression.
enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Data(&'a [u8]),
    Zeros(usize),
    Verdict(&'a Verdict),
}

impl Value<'_> {
    fn write(&self, kind: u16, to: &mut Attributes<'_>) {
        match self {
            Self::Number(number) => to.put_be32(kind, *number),
            Self::Text(text) => to.put_str(kind, text),
            Self::Data(bytes) => to.nest(kind, |data| data.put(DATA_VALUE, bytes)),
            Self::Zeros(length) => to.nest(kind, |data| data.put(DATA_VALUE, &vec![0; *length])),
            Self::Verdict(verdict) => to.nest(kind, |data| {
                data.nest(DATA_VERDICT, |inner| {
                    let (code, chain) = match verdict {
                        Verdict::Accept => (libc::NF_ACCEPT, None),
                        Verdict::Drop => (libc::NF_DROP, None),
                        Verdict::Return => (libc::NFT_RETURN, None),
                        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
                        Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
                    };
                    inner.put(VERDICT_CODE, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        inner.put_str(VERDICT_CHAIN, chain);
                    }
                });
            }),
        }
    }
}
