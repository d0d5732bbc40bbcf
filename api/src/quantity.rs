//! Resource quantities: `500m`, `1Gi`, `1e3`.
//!
//! A quantity is an exact number of billionths (the finest unit that Kubernetes knows) and the family of suffixes that
//! it was written in, which is only used to print it again. What is finer is rounded away from zero and what is larger
//! than 2^63-1 is cut to that, as Kubernetes does.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

/// Longest text that is read as a quantity; the longest sensible one has about twenty digits.
pub const QUANTITY_BYTES_MAX: usize = 64;

/// Beyond this exponent every number is cut or rounded to the finest.
const EXPONENT_MAX: i32 = 200;
const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
/// 2^63-1 whole units, the largest magnitude that Kubernetes keeps.
const NANOS_MAX: i128 = i64::MAX as i128 * NANOS_PER_UNIT;
/// Suffix and power of 1024.
const BINARY_SUFFIXES: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];
/// Suffix and power of ten.
const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// How a quantity was written, and so how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `1Ki`, `1Mi` …: powers of 1024.
    Binary,
    /// `1m`, `1`, `1k`, `1M` …: powers of ten.
    #[default]
    Decimal,
    /// `1e3`: powers of ten as an exponent.
    Exponent,
}

/// A fixed-point number with a unit suffix.
///
/// Equality and order look at the number alone: `1000m` equals `1`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantity {text:?} is not a number with an optional suffix such as m, k, Mi or Gi")]
pub struct QuantityError {
    /// The text, cut to [`QUANTITY_BYTES_MAX`].
    pub text: String,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// A number of whole units, printed with decimal suffixes.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANOS_PER_UNIT, format: Format::Decimal }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS_PER_UNIT, format: Format::Binary }
    }

    /// A number of thousandths.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * NANOS_PER_MILLI, format: Format::Decimal }
    }

    /// Whole units, rounded away from zero.
    pub fn units(self) -> i64 {
        round_up(self.nanos, NANOS_PER_UNIT)
    }

    /// Thousandths, rounded away from zero and cut to what an `i64` holds.
    pub fn millis(self) -> i64 {
        round_up(self.nanos, NANOS_PER_MILLI)
    }

    /// How it was written.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS_PER_UNIT == 0
    }

    /// The sum, cut at the largest quantity; printed as the first was written, unless that is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: clamp(self.nanos + other.nanos), format }
    }

    /// The difference, cut at the largest quantity.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: clamp(self.nanos - other.nanos), format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(other)
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = self.plus(other);
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.minus(other)
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Self::plus)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).ok_or_else(|| QuantityError { text: text.chars().take(QUANTITY_BYTES_MAX).collect() })
    }
}

impl TryFrom<&WireQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(wire: &WireQuantity) -> Result<Self, QuantityError> {
        wire.0.parse()
    }
}

impl From<Quantity> for WireQuantity {
    fn from(quantity: Quantity) -> Self {
        WireQuantity(quantity.to_string())
    }
}

/// The canonical form: no fraction, no exponent where a suffix fits, the largest suffix that keeps it exact.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANOS_PER_UNIT;
        // Below 1024, and for fractions, binary suffixes have nothing to say.
        if self.format == Format::Binary && self.is_whole() && units.abs() >= 1024 {
            let (mut number, mut suffix) = (units, "");
            for (name, _) in BINARY_SUFFIXES {
                if number % 1024 != 0 {
                    break;
                }
                (number, suffix) = (number / 1024, name);
            }
            return write!(f, "{number}{suffix}");
        }
        let (mut number, mut power) = (self.nanos, -9);
        while number != 0 && number % 1000 == 0 && power < 18 {
            (number, power) = (number / 1000, power + 3);
        }
        if number == 0 {
            return f.write_str("0");
        }
        match self.format {
            Format::Exponent if power != 0 => write!(f, "{number}e{power}"),
            _ => {
                let suffix = DECIMAL_SUFFIXES.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| name);
                write!(f, "{number}{suffix}")
            }
        }
    }
}

fn clamp(nanos: i128) -> i128 {
    nanos.clamp(-NANOS_MAX, NANOS_MAX)
}

fn round_up(nanos: i128, unit: i128) -> i64 {
    let away = if nanos % unit == 0 { 0 } else { nanos.signum() };
    let rounded = (nanos / unit + away).clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

fn parse(text: &str) -> Option<Quantity> {
    if text.len() > QUANTITY_BYTES_MAX {
        return None;
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, suffix) = rest.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (multiplier, format) = parse_suffix(suffix)?;
    let nanos = match multiplier {
        Multiplier::Binary(power) => scale(whole, fraction, 0, 1024_i128.pow(power) * NANOS_PER_UNIT),
        Multiplier::Decimal(power) => scale(whole, fraction, power, NANOS_PER_UNIT),
    };
    Some(Quantity { nanos: sign * nanos, format })
}

enum Multiplier {
    Binary(u32),
    Decimal(i32),
}

fn parse_suffix(suffix: &str) -> Option<(Multiplier, Format)> {
    if let Some((_, power)) = BINARY_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Some((Multiplier::Binary(*power), Format::Binary));
    }
    if let Some((_, power)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Some((Multiplier::Decimal(*power), Format::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    // `i32::from_str` takes a sign and digits, nothing else. Beyond the bound every number is cut or rounded anyway.
    let power: i32 = exponent.parse().ok()?;
    Some((Multiplier::Decimal(power.clamp(-EXPONENT_MAX, EXPONENT_MAX)), Format::Exponent))
}

/// `whole.fraction * 10^power * factor`, rounded up, cut at the largest quantity.
///
/// Exact whatever the number of digits: the point is moved in the text, the digits before it are multiplied, and those
/// behind it are folded from the right, where each division by ten may drop its remainder once it is remembered.
fn scale(whole: &str, fraction: &str, power: i32, factor: i128) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0'));
    let point = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_add(power);
    let before = usize::try_from(point).unwrap_or(0);
    let zeros_behind_point = usize::try_from(-point).unwrap_or(0);

    let mut nanos: i128 = 0;
    for digit in digits.clone().chain(std::iter::repeat(0)).take(before) {
        nanos = nanos * 10 + digit * factor;
        if nanos > NANOS_MAX {
            return NANOS_MAX;
        }
    }
    let behind: Vec<i128> = std::iter::repeat_n(0, zeros_behind_point).chain(digits.skip(before)).collect();
    let (mut part, mut inexact) = (0, false);
    for digit in behind.iter().rev() {
        part += digit * factor;
        inexact |= part % 10 != 0;
        part /= 10;
    }
    (nanos + part + i128::from(inexact)).min(NANOS_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, canonical: &str, millis: i64, units: i64) {
        let quantity: Quantity = text.parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(quantity.to_string(), canonical, "{text} prints");
        assert_eq!(quantity.millis(), millis, "{text} in thousandths");
        assert_eq!(quantity.units(), units, "{text} in units");
    }

    #[test]
    fn quantities_read_and_print_as_kubernetes_does() {
        for (text, canonical, millis, units) in [
            ("0", "0", 0, 0),
            ("-0", "0", 0, 0),
            ("500m", "500m", 500, 1),
            ("0.5", "500m", 500, 1),
            (".5", "500m", 500, 1),
            ("5.", "5", 5000, 5),
            ("1000m", "1", 1000, 1),
            ("1.5", "1500m", 1500, 2),
            ("100M", "100M", 100_000_000_000, 100_000_000),
            ("1000k", "1M", 1_000_000_000, 1_000_000),
            ("1Gi", "1Gi", 1_073_741_824_000, 1_073_741_824),
            ("1024Mi", "1Gi", 1_073_741_824_000, 1_073_741_824),
            ("1.5Gi", "1536Mi", 1_610_612_736_000, 1_610_612_736),
            ("0.5Ki", "512", 512_000, 512),
            ("0.001Ki", "1024m", 1024, 2),
            ("1e3", "1e3", 1_000_000, 1000),
            ("1E3", "1e3", 1_000_000, 1000),
            ("1500e3", "1500e3", 1_500_000_000, 1_500_000),
            ("1e0", "1", 1000, 1),
            ("1E", "1E", i64::MAX, 1_000_000_000_000_000_000),
            ("-2", "-2", -2000, -2),
            ("+2", "2", 2000, 2),
            ("1n", "1n", 1, 1),
            ("0.1n", "1n", 1, 1),
            ("100u", "100u", 1, 1),
            ("8Ei", "9223372036854775807", i64::MAX, i64::MAX),
            ("9e900", "9223372036854775807", i64::MAX, i64::MAX),
            ("7.0000000000000000001Ei", "8070450532247928832115292151n", i64::MAX, 8_070_450_532_247_928_833),
            ("1e-900", "1e-9", 1, 1),
        ] {
            check(text, canonical, millis, units);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "m", "1.2.3", "1 Gi", "1gi", "1K", "1e", "1e1.5", "0x10", "1Gi ", "--1", "1µ", "e3"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text:?} must not parse");
        }
        assert!("1".repeat(QUANTITY_BYTES_MAX + 1).parse::<Quantity>().is_err());
    }

    #[test]
    fn order_looks_at_the_number() {
        let parse = |t: &str| t.parse::<Quantity>().unwrap();
        assert_eq!(parse("1000m"), parse("1"));
        assert!(parse("1Gi") > parse("1G"));
        assert!(parse("-1") < parse("1m"));
        assert_eq!((parse("500m") + parse("0.5")).to_string(), "1");
        assert_eq!((Quantity::ZERO + parse("2Gi")).to_string(), "2Gi");
        assert_eq!((parse("1Gi") - parse("512Mi")).to_string(), "512Mi");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not_but_never_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn numbers_with_suffixes_survive_printing(
            text in "[+-]?[0-9]{0,40}(\\.[0-9]{0,20})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,3})?"
        ) {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let printed = quantity.to_string();
                let again: Quantity = printed.parse().unwrap();
                prop_assert_eq!(quantity, again);
                prop_assert_eq!(printed, again.to_string());
            }
        }

        #[test]
        fn sums_follow_the_numbers(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
            let sum = Quantity::from_millis(a) + Quantity::from_millis(b);
            prop_assert_eq!(sum.millis(), a + b);
        }
    }
}
