//! Any seccomp profile: its program is one that the kernel takes, and answers every call as the profile says, read as
//! plainly as possible.
#![no_main]

use berth_runtime::{Error, compile_seccomp};
use berth_sys::seccomp::{INSTRUCTIONS_MAX, Instruction};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

// `AUDIT_ARCH_*`, linux/audit.h.
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// Calls of the x32 language have this bit in their number.
const X32_BIT: u32 = 0x4000_0000;

const KILL_PROCESS: u32 = 0x8000_0000;
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// Some calls: their numbers on x86-64 and x86.
const CALLS: [(&str, Option<u32>, Option<u32>); 9] = [
    ("read", Some(0), Some(3)),
    ("write", Some(1), Some(4)),
    ("ioctl", Some(16), Some(54)),
    ("socket", Some(41), Some(359)),
    ("kill", Some(62), Some(37)),
    ("openat", Some(257), Some(295)),
    ("clone3", Some(435), Some(435)),
    ("_llseek", None, Some(140)),
    ("nonsense", None, None),
];

#[derive(Debug, Arbitrary)]
struct Profile {
    default: Action,
    errno: Option<u16>,
    has_x86: bool,
    rules: Vec<Rule>,
    calls: Vec<Call>,
}

#[derive(Debug, Arbitrary)]
struct Rule {
    names: Vec<u8>,
    action: Action,
    errno: Option<u16>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Action {
    Allow,
    Errno,
    KillThread,
    KillProcess,
    Trap,
    Trace,
    Log,
    Notify,
}

#[derive(Debug, Arbitrary)]
struct Condition {
    index: u8,
    operator: Operator,
    value: Number,
    second: Option<Number>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Operator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    MaskedEq,
}

/// Mostly numbers that are close to one another, in either half.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Low(u8),
    High(u8),
    Both(u8, u8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
struct Call {
    number: u16,
    is_x32: bool,
    arguments: [Number; 6],
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Allow => "SCMP_ACT_ALLOW",
            Self::Errno => "SCMP_ACT_ERRNO",
            Self::KillThread => "SCMP_ACT_KILL_THREAD",
            Self::KillProcess => "SCMP_ACT_KILL_PROCESS",
            Self::Trap => "SCMP_ACT_TRAP",
            Self::Trace => "SCMP_ACT_TRACE",
            Self::Log => "SCMP_ACT_LOG",
            Self::Notify => "SCMP_ACT_NOTIFY",
        }
    }

    /// seccomp(2)
    fn verdict(self, errno: Option<u16>) -> u32 {
        let data = errno.map_or(libc::EPERM as u32, u32::from);
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno => 0x0005_0000 | data,
            Self::KillThread => 0,
            Self::KillProcess => KILL_PROCESS,
            Self::Trap => 0x0003_0000,
            Self::Trace => 0x7ff0_0000 | data,
            Self::Log => 0x7ffc_0000,
            Self::Notify => 0x7fc0_0000,
        }
    }
}

impl Number {
    fn value(self) -> u64 {
        match self {
            Self::Low(low) => low.into(),
            Self::High(high) => u64::from(high) << 32,
            Self::Both(high, low) => u64::from(high) << 32 | u64::from(low),
            Self::Any(number) => number,
        }
    }
}

impl Rule {
    fn calls(&self) -> impl Iterator<Item = &'static (&'static str, Option<u32>, Option<u32>)> {
        self.names.iter().map(|at| &CALLS[usize::from(*at) % CALLS.len()])
    }

    fn json(&self) -> Value {
        let names: Vec<&str> = self.calls().map(|call| call.0).collect();
        let conditions: Vec<Value> = self.conditions.iter().map(Condition::json).collect();
        json!({"names": names, "action": self.action.name(), "errnoRet": self.errno, "args": conditions})
    }

    /// All conditions, unless several are on one argument: then any.
    fn holds(&self, arguments: &[u64; 6]) -> bool {
        let mut indices: Vec<_> = self.conditions.iter().map(Condition::index).collect();
        indices.sort_unstable();
        let is_repeated = indices.windows(2).any(|two| two[0] == two[1]);
        let mut conditions = self.conditions.iter();
        if is_repeated { conditions.any(|it| it.holds(arguments)) } else { conditions.all(|it| it.holds(arguments)) }
    }
}

impl Condition {
    fn index(&self) -> usize {
        usize::from(self.index) % 6
    }

    fn json(&self) -> Value {
        let operator = match self.operator {
            Operator::Eq => "SCMP_CMP_EQ",
            Operator::Ne => "SCMP_CMP_NE",
            Operator::Lt => "SCMP_CMP_LT",
            Operator::Le => "SCMP_CMP_LE",
            Operator::Gt => "SCMP_CMP_GT",
            Operator::Ge => "SCMP_CMP_GE",
            Operator::MaskedEq => "SCMP_CMP_MASKED_EQ",
        };
        let second = self.second.map(Number::value);
        json!({"index": self.index(), "value": self.value.value(), "valueTwo": second, "op": operator})
    }

    fn holds(&self, arguments: &[u64; 6]) -> bool {
        let (argument, value) = (arguments[self.index()], self.value.value());
        match self.operator {
            Operator::Eq => argument == value,
            Operator::Ne => argument != value,
            Operator::Lt => argument < value,
            Operator::Le => argument <= value,
            Operator::Gt => argument > value,
            Operator::Ge => argument >= value,
            Operator::MaskedEq => argument & value == self.second.map_or(0, Number::value) & value,
        }
    }
}

impl Profile {
    fn json(&self) -> Value {
        let machines = if self.has_x86 { vec!["SCMP_ARCH_X86"] } else { Vec::new() };
        let rules: Vec<Value> = self.rules.iter().map(Rule::json).collect();
        json!({
            "defaultAction": self.default.name(), "defaultErrnoRet": self.errno,
            "architectures": machines, "syscalls": rules,
        })
    }

    /// What the profile says about a call.
    fn verdict(&self, machine: u32, number: u32, arguments: &[u64; 6]) -> u32 {
        let of = |call: &(&str, Option<u32>, Option<u32>)| if machine == X86 { call.2 } else { call.1 };
        match machine {
            X86_64 if number >= X32_BIT => return NO_SUCH_CALL,
            X86_64 => {}
            X86 if self.has_x86 => {}
            _ => return KILL_PROCESS,
        }
        let mut about = self.rules.iter().filter(|rule| rule.calls().any(|call| of(call) == Some(number)));
        if let Some(rule) = about.find(|rule| rule.holds(arguments)) {
            return rule.action.verdict(rule.errno);
        }
        // Calls that are younger than the profile are refused as a kernel without them would.
        let youngest = self.rules.iter().flat_map(Rule::calls).filter_map(of).max();
        let refuses = !matches!(self.default, Action::Allow | Action::Log | Action::Trace);
        match youngest {
            Some(youngest) if number > youngest && refuses => NO_SUCH_CALL,
            _ => self.default.verdict(self.errno),
        }
    }
}

/// What the kernel does with a program, after its `seccomp_check_filter`: the few instructions that there are.
fn run(program: &[Instruction], machine: u32, number: u32, arguments: &[u64; 6]) -> u32 {
    let (mut at, mut value) = (0, 0_u32);
    loop {
        let it = program[at];
        at += 1;
        let holds = match it.code {
            0x20 => {
                value = match it.operand {
                    0 => number,
                    4 => machine,
                    offset => (arguments[(offset as usize - 16) / 8] >> (offset % 8 * 8)) as u32,
                };
                continue;
            }
            0x54 => {
                value &= it.operand;
                continue;
            }
            0x05 => {
                at += it.operand as usize;
                continue;
            }
            0x06 => return it.operand,
            0x15 => value == it.operand,
            0x25 => value > it.operand,
            0x35 => value >= it.operand,
            other => panic!("no instruction {other:#x}"),
        };
        at += usize::from(if holds { it.when_true } else { it.when_false });
    }
}

/// Whether the kernel takes a program: every jump ends inside, every load is aligned and inside, the last one returns.
fn check(program: &[Instruction]) {
    assert!(program.len() <= INSTRUCTIONS_MAX, "{} instructions", program.len());
    assert_eq!(program.last().map(|it| it.code), Some(0x06));
    for (at, it) in program.iter().enumerate() {
        let farthest = match it.code {
            0x05 => it.operand as usize,
            0x15 | 0x25 | 0x35 => it.when_true.max(it.when_false).into(),
            0x20 => {
                assert!(it.operand % 4 == 0 && it.operand < 64);
                0
            }
            _ => 0,
        };
        assert!(farthest < program.len() - at || farthest == 0, "instruction {at} jumps out");
        assert!(at + 1 + farthest < program.len() || it.code == 0x06, "instruction {at} leads out");
    }
}

fuzz_target!(|profile: Profile| {
    let document = serde_json::from_value(profile.json()).expect("it is a profile");
    let program = match compile_seccomp(&document) {
        Ok(program) => program,
        Err(Error::Spec { field, .. }) => return assert!(field.starts_with("linux.seccomp."), "{field}"),
        Err(other) => panic!("names no field: {other:?}"),
    };
    check(&program);
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    for call in &profile.calls {
        let number = u32::from(call.number) % 512 | if call.is_x32 { X32_BIT } else { 0 };
        let arguments = call.arguments.map(Number::value);
        for machine in [X86_64, X86, AARCH64] {
            let seen = run(&program, machine, number, &arguments);
            let said = profile.verdict(machine, number, &arguments);
            assert_eq!(seen, said, "{machine:#x} {number} {arguments:x?}");
        }
    }
});
