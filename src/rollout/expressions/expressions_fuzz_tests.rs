//! Generated expressions: no source breaks the parser, and no evaluation exceeds its budget, whatever it reads.
//!
//! Absent: the meaning of expressions; see `expressions_tests`.

use super::tests::{candidate, current};
use super::*;
use crate::api::ModelVersion;
use crate::testing::fuzz::{Fuzz, Random};
use crate::testing::{With, at, binding};

const TRUTHS: &[&str] = &[
    "true",
    "false",
    "has(candidate.code.commit)",
    "has(current.metrics.rmse)",
    "current == null",
    "current != null",
    "'rmse' in candidate.metrics",
    "candidate.tags['Approval'] == 'approved'",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "1.5",
    "1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "MiB",
    "candidate.metrics.rmse",
    "current.metrics.rmse",
    "candidate.metrics.nan",
    "candidate.metrics['r2']",
    "candidate.sizeBytes",
    "candidate.durationSeconds",
    "current.durationSeconds",
    "size(candidate.metrics)",
    "int(candidate.version)",
    "int(candidate.parameters.max_depth)",
];
const TEXTS: &[&str] = &[
    "''",
    "'a'",
    "'é😀'",
    "\"Live\"",
    "candidate.version",
    "candidate.source",
    "candidate.tags['validation']",
    "candidate.tags.t01",
    "candidate.parameters.kind",
    "candidate.code.commit",
    "current.code.branch",
    "candidate.datasets[0].name",
    "model.name",
    "model.aliases['champion']",
    "binding.namespace",
    "binding.labels['a/b']",
];
const TIMES: &[&str] = &[
    "now",
    "candidate.createdAt",
    "current.createdAt",
    "timestamp('0001-01-01T00:00:00Z')",
    "timestamp('9999-12-30T22:00:00Z')",
    "timestamp(candidate.tags['validation'])",
];
const DURATIONS: &[&str] = &[
    "candidate.age",
    "current.age",
    "duration('1h')",
    "duration('9999999h')",
    "duration('-1m30s')",
    "duration(candidate.parameters.kind)",
];
const LISTS: &[&str] = &[
    "[]",
    "['a', '']",
    "['trips', candidate.version]",
    "candidate.tags",
    "candidate.parameters",
    "model.aliases",
];
const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
const MACROS: &[&str] = &["all", "exists", "exists_one"];
/// What is no part of gates, and what stands at a wrong place.
const MISTAKES: &[&str] = &[
    "null",
    "x",
    "candidat",
    "candidate",
    "1u",
    "b'a'",
    "{}",
    "a.b{c: 1}",
    "dyn(1)",
    "'a'.matches('a')",
    "candidate.datasets",
];

fn truth(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.once_in(8) {
        return atom(random, TRUTHS);
    }
    let deeper = depth - 1;
    match random.below(10) {
        0 => format!("({})", truth(random, deeper)),
        1 => format!("!({})", truth(random, deeper)),
        2 | 3 => {
            let sign = random.pick(&["&&", "||"]);
            format!("{} {sign} {}", truth(random, deeper), truth(random, deeper))
        }
        4 => {
            let condition = truth(random, deeper);
            let (yes, no) = (truth(random, deeper), truth(random, deeper));
            format!("({condition} ? {yes} : {no})")
        }
        5 => {
            let method = random.pick(&["contains", "startsWith", "endsWith"]);
            format!(
                "{}.{method}({})",
                text(random, deeper),
                text(random, deeper)
            )
        }
        6 => format!("{} in {}", text(random, deeper), random.pick(LISTS)),
        7 => {
            let (list, kind) = (random.pick(LISTS), random.pick(MACROS));
            let other = text(random, deeper);
            let body = match random.below(3) {
                0 => format!("x == {other}"),
                1 => format!("x.contains({other}) && size(x) > 1"),
                _ => truth(random, deeper),
            };
            format!("{list}.{kind}(x, {body})")
        }
        _ => comparison(random, deeper),
    }
}

fn comparison(random: &mut Random, depth: usize) -> String {
    let sign = random.pick(COMPARISONS);
    let of: fn(&mut Random, usize) -> String = *random.pick(&[
        number as fn(&mut Random, usize) -> String,
        number,
        text,
        time,
        duration,
    ]);
    format!("{} {sign} {}", of(random, depth), of(random, depth))
}

fn number(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.once_in(3) {
        return atom(random, NUMBERS);
    }
    let deeper = depth - 1;
    match random.below(8) {
        0..=3 => {
            let sign = random.pick(&["+", "-", "*", "/", "%"]);
            format!(
                "({} {sign} {})",
                number(random, deeper),
                number(random, deeper)
            )
        }
        4 => format!("-({})", number(random, deeper)),
        5 => format!("size({})", text(random, deeper)),
        6 => format!("[1, 2, 3].map(x, x * {}).size()", number(random, deeper)),
        _ => {
            let function = random.pick(&["int", "double"]);
            let inner = if random.once_in(2) {
                text(random, deeper)
            } else {
                number(random, deeper)
            };
            format!("{function}({inner})")
        }
    }
}

fn text(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.once_in(3) {
        return atom(random, TEXTS);
    }
    let deeper = depth - 1;
    match random.below(5) {
        0 | 1 => format!("({} + {})", text(random, deeper), text(random, deeper)),
        2 => format!("string({})", number(random, deeper)),
        3 => format!("{}.substring({})", text(random, deeper), number(random, 0)),
        _ => format!(
            "{}.split({})[{}]",
            text(random, deeper),
            text(random, 0),
            random.below(3)
        ),
    }
}

fn time(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.once_in(2) {
        return atom(random, TIMES);
    }
    let sign = random.pick(&["+", "-"]);
    format!(
        "({} {sign} {})",
        time(random, depth - 1),
        duration(random, depth - 1)
    )
}

fn duration(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.once_in(2) {
        return atom(random, DURATIONS);
    }
    match random.below(3) {
        0 => format!(
            "({} - {})",
            time(random, depth - 1),
            time(random, depth - 1)
        ),
        1 => format!("-({})", duration(random, depth - 1)),
        _ => format!(
            "({} + {})",
            duration(random, depth - 1),
            duration(random, depth - 1)
        ),
    }
}

fn atom(random: &mut Random, atoms: &[&str]) -> String {
    let is_mistake = random.once_in(60);
    let atoms = if is_mistake { MISTAKES } else { atoms };
    (*random.pick(atoms)).to_owned()
}

fn source(random: &mut Random) -> String {
    let depth = random.below(6);
    truth(random, depth)
}

#[test]
fn no_expression_panics_or_exceeds_its_budget_whatever_it_reads() {
    let fuzz = Fuzz {
        name: "gates",
        words: &[
            "(",
            ")",
            "[",
            "]",
            "'",
            "\"",
            "?",
            ":",
            ",",
            "\\",
            "`",
            "&",
            "//",
            "/*",
            "0x",
            "u",
            "'''",
            "r'",
            "\u{feff}",
            "in",
            "has",
            "all",
            "candidate",
        ],
        generate: Some(source),
        accepted_of: 3,
    };
    let model = ModelFacts::default();
    let (binding, current) = (binding(), current());
    let full = candidate().with(|version| {
        let tags = (0..64).map(|number| (format!("t{number:02}"), "é".repeat(125)));
        version.tags = Some(tags.collect());
    });
    let candidates = [candidate(), ModelVersion::default(), full];
    let mut evaluations = 0_usize;
    fuzz.run(|source| {
        let Ok(source) = std::str::from_utf8(source) else {
            return false;
        };
        let Ok(expression) = Expression::of(source) else {
            return false;
        };
        for candidate in &candidates {
            for (current, now) in [
                (None, "1970-01-01T00:00:00Z"),
                (Some(&current), "9999-12-30T22:00:00Z"),
            ] {
                let facts = Facts {
                    candidate,
                    current,
                    model: &model,
                    binding: &binding,
                    now: at(now),
                };
                let result = expression.is_true(&facts);
                assert!(result.is_ok() || format!("{result:?}").len() < 100_000);
                _ = expression.values(&facts);
                evaluations += 1;
            }
        }
        true
    });
    println!("fuzz gates: {evaluations} evaluations");
}
