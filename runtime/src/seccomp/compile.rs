//! Rules to a BPF program, which sees `struct seccomp_data`: number, machine, instruction pointer, six arguments.
//!
//! The numbers of a machine's calls are cut into ranges that are treated alike; a binary search finds the range.

use berth_sys::seccomp::{INSTRUCTIONS_MAX, Instruction};

use super::profile::{Comparison, Condition, KILL, NO_SUCH_CALL, Rule, Table, Verdict};
use super::syscalls::Machine;

// Codes of linux/bpf_common.h as combined here: load a word, compare with a constant, return.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets into `struct seccomp_data`, linux/seccomp.h, little-endian.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Calls of the x32 language have this bit in their number, and x86-64's machine code.
const X32_BIT: u32 = 0x4000_0000;

const fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, when_true: 0, when_false: 0, operand }
}

const fn branch(code: u16, operand: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction { code, when_true, when_false, operand }
}

/// Compiles the tables to one program; `None` if it is longer than the kernel takes.
pub(super) fn compile(tables: &[Table]) -> Option<Vec<Instruction>> {
    let mut program = vec![plain(LOAD, MACHINE)];
    for table in tables {
        let mut body = vec![plain(LOAD, NUMBER)];
        body.extend(search(&ranges(table)));
        // Skipping one instruction is the short way round to a jump that may be long.
        program.push(branch(IF_EQUAL, table.machine.audit(), 1, 0));
        program.push(plain(JUMP, body.len() as u32));
        program.extend(body);
    }
    program.push(plain(RETURN, KILL));
    (program.len() <= INSTRUCTIONS_MAX).then_some(program)
}

/// What to do with the calls from `first` to the next range.
struct Range {
    first: u32,
    code: Vec<Instruction>,
}

fn ranges(table: &Table) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut add = |first: u32, code: Vec<Instruction>| match ranges.last_mut() {
        Some(last) if last.code == code => {}
        Some(last) if last.first == first => last.code = code,
        _ => ranges.push(Range { first, code }),
    };
    add(0, verdict(table.default));
    for (&number, rules) in &table.rules {
        add(number, decide(rules, table.default));
        let next = number + 1;
        if !table.rules.contains_key(&next) {
            add(next, verdict(table.default));
        }
    }
    if let Some((&youngest, _)) = table.rules.last_key_value() {
        add(youngest + 1, verdict(table.newer));
    }
    if table.machine == Machine::X86_64 {
        // Most kernels have no x32 calls at all.
        add(X32_BIT, verdict(NO_SUCH_CALL));
    }
    ranges
}

/// The number is loaded: goes to the code of its range.
fn search(ranges: &[Range]) -> Vec<Instruction> {
    match ranges {
        [] => verdict(KILL),
        [range] => range.code.clone(),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (below, above) = (search(low), search(high));
            let middle = high.first().map_or(0, |range| range.first);
            let mut code = vec![branch(IF_GREATER_OR_EQUAL, middle, 0, 1), plain(JUMP, below.len() as u32)];
            code.extend(below);
            code.extend(above);
            code
        }
    }
}

/// The first rule whose conditions hold decides.
fn decide(rules: &[Rule], default: Verdict) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        let tests: Vec<Vec<Instruction>> = rule.conditions.iter().map(test).collect();
        let length: usize = tests.iter().map(Vec::len).sum();
        let mut left = length;
        for mut test in tests {
            // A test that fails jumps to the end of its rule: past what is left of it, and the return. At most six
            // tests of six instructions: no jump is too far for its eight bits.
            for it in &mut test {
                for jump in [&mut it.when_true, &mut it.when_false] {
                    if *jump == FAIL {
                        *jump = left as u8;
                    }
                }
                left -= 1;
            }
            code.extend(test);
        }
        code.extend(verdict(rule.verdict));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.extend(verdict(default));
    code
}

/// Stands for a jump to the end of the rule until that is known.
const FAIL: u8 = u8::MAX;

fn test(condition: &Condition) -> Vec<Instruction> {
    let low = ARGUMENTS + condition.index * 8;
    let high = low + 4;
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    let compare = |code: u16| {
        // The high halves decide unless they are equal.
        vec![
            plain(LOAD, high),
            branch(IF_GREATER, value_high, 3, 0),
            branch(IF_EQUAL, value_high, 0, FAIL),
            plain(LOAD, low),
            branch(code, value_low, 0, FAIL),
        ]
    };
    let below = |code: u16| {
        vec![
            plain(LOAD, high),
            branch(IF_GREATER, value_high, FAIL, 0),
            branch(IF_EQUAL, value_high, 0, 2),
            plain(LOAD, low),
            branch(code, value_low, FAIL, 0),
        ]
    };
    match condition.comparison {
        Comparison::Greater => compare(IF_GREATER),
        Comparison::GreaterOrEqual => compare(IF_GREATER_OR_EQUAL),
        Comparison::Less => below(IF_GREATER_OR_EQUAL),
        Comparison::LessOrEqual => below(IF_GREATER),
        Comparison::Equal => vec![
            plain(LOAD, high),
            branch(IF_EQUAL, value_high, 0, FAIL),
            plain(LOAD, low),
            branch(IF_EQUAL, value_low, 0, FAIL),
        ],
        Comparison::NotEqual => vec![
            plain(LOAD, high),
            branch(IF_EQUAL, value_high, 0, 2),
            plain(LOAD, low),
            branch(IF_EQUAL, value_low, FAIL, 0),
        ],
        Comparison::Masked(mask) => vec![
            plain(LOAD, high),
            plain(AND, (mask >> 32) as u32),
            branch(IF_EQUAL, value_high, 0, FAIL),
            plain(LOAD, low),
            plain(AND, mask as u32),
            branch(IF_EQUAL, value_low, 0, FAIL),
        ],
    }
}

fn verdict(verdict: Verdict) -> Vec<Instruction> {
    vec![plain(RETURN, verdict)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ALLOW: Verdict = 0x7fff_0000;
    const REFUSE: Verdict = 0x0005_0001;

    /// What the kernel would answer: the few instructions that are used, run on a call.
    fn run(program: &[Instruction], machine: Machine, number: u32, arguments: &[u64; 6]) -> Verdict {
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let it = program[at];
            at += 1;
            let condition = match it.code {
                LOAD => {
                    value = match it.operand {
                        NUMBER => number,
                        MACHINE => machine.audit(),
                        offset => (arguments[(offset as usize - 16) / 8] >> ((offset % 8) * 8)) as u32,
                    };
                    continue;
                }
                AND => {
                    value &= it.operand;
                    continue;
                }
                JUMP => {
                    at += it.operand as usize;
                    continue;
                }
                RETURN => return it.operand,
                IF_EQUAL => value == it.operand,
                IF_GREATER => value > it.operand,
                IF_GREATER_OR_EQUAL => value >= it.operand,
                other => panic!("no instruction {other}"),
            };
            at += usize::from(if condition { it.when_true } else { it.when_false });
        }
    }

    fn holds(condition: &Condition, arguments: &[u64; 6]) -> bool {
        let (argument, value) = (arguments[condition.index as usize], condition.value);
        match condition.comparison {
            Comparison::Equal => argument == value,
            Comparison::NotEqual => argument != value,
            Comparison::Less => argument < value,
            Comparison::LessOrEqual => argument <= value,
            Comparison::Greater => argument > value,
            Comparison::GreaterOrEqual => argument >= value,
            Comparison::Masked(mask) => argument & mask == value,
        }
    }

    /// The meaning of a table, said as plainly as possible.
    fn expected(table: &Table, number: u32, arguments: &[u64; 6]) -> Verdict {
        let youngest = table.rules.last_key_value().map_or(u32::MAX, |(number, _)| *number);
        if table.machine == Machine::X86_64 && number >= X32_BIT {
            return NO_SUCH_CALL;
        }
        let rules = table.rules.get(&number).map(Vec::as_slice).unwrap_or_default();
        let met = rules.iter().find(|rule| rule.conditions.iter().all(|condition| holds(condition, arguments)));
        met.map_or(if number > youngest { table.newer } else { table.default }, |rule| rule.verdict)
    }

    /// Few values, so that comparisons are often close.
    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..4, Just(1 << 32), Just((1 << 32) | 2), Just(u64::MAX), Just(0x5_0000_0001)]
    }

    fn comparison() -> impl Strategy<Value = Comparison> {
        prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::Less),
            Just(Comparison::LessOrEqual),
            Just(Comparison::Greater),
            Just(Comparison::GreaterOrEqual),
            value().prop_map(Comparison::Masked),
        ]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let condition = (0_u32..6, comparison(), value()).prop_map(|(index, comparison, value)| Condition {
            index,
            comparison,
            value: if let Comparison::Masked(mask) = comparison { value & mask } else { value },
        });
        let verdict = prop_oneof![Just(ALLOW), Just(REFUSE), Just(KILL)];
        (proptest::collection::vec(condition, 0..4), verdict)
            .prop_map(|(conditions, verdict)| Rule { conditions, verdict })
    }

    fn table(machine: Machine) -> impl Strategy<Value = Table> {
        let rules = proptest::collection::btree_map(0_u32..40, proptest::collection::vec(rule(), 1..3), 0..20);
        rules.prop_map(move |rules: BTreeMap<u32, Vec<Rule>>| Table {
            machine,
            rules,
            default: REFUSE,
            newer: NO_SUCH_CALL,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_program_means_what_its_rules_say(
            tables in (table(Machine::X86_64), table(Machine::X86)),
            calls in proptest::collection::vec((0_u32..45, proptest::array::uniform6(value())), 40),
        ) {
            let tables = [tables.0, tables.1];
            let program = compile(&tables).unwrap();
            for (number, arguments) in &calls {
                for table in &tables {
                    let seen = run(&program, table.machine, *number, arguments);
                    prop_assert_eq!(seen, expected(table, *number, arguments));
                }
                prop_assert_eq!(run(&program, Machine::Aarch64, *number, arguments), KILL);
                prop_assert_eq!(run(&program, Machine::X86_64, number | X32_BIT, arguments), NO_SUCH_CALL);
            }
        }
    }
}
