//! What expressions mean, and what they may cost.
//!
//! Absent: generated expressions; see `expressions_fuzz_tests`. Gates in a cluster; see the scenarios.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::api::ModelVersion;
use crate::api::registered_model::{CodeLineage, Dataset};
use crate::testing::{With, at, binding, now, time};

fn texts(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    let entries = entries.iter();
    entries
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(super) fn candidate() -> ModelVersion {
    ModelVersion {
        version: "5".to_owned(),
        source: Some("models:/m-5".to_owned()),
        run_id: Some("r5".to_owned()),
        created_at: Some(time("2026-11-23T10:00:00Z")),
        created_by: Some("kamal".to_owned()),
        duration_seconds: Some(90),
        size_bytes: Some(300 << 20),
        metrics: texts(&[("rmse", "0.41"), ("nan", "NaN"), ("r2", "0.8")]),
        parameters: texts(&[("max_depth", "10"), ("kind", "forest")]),
        tags: Some(texts(&[
            ("validation", "passed"),
            ("Approval", "approved"),
            (
                "pointsman.dev/eu-canary/ml/taxi",
                "Live 2026-11-23T10:30:00Z",
            ),
        ])),
        code: Some(CodeLineage {
            commit: Some("abc".to_owned()),
            ..CodeLineage::default()
        }),
        datasets: vec![Dataset {
            name: "trips".to_owned(),
            context: Some("training".to_owned()),
            digest: None,
        }],
        ..ModelVersion::default()
    }
}

pub(super) fn current() -> ModelVersion {
    candidate().with(|version| {
        version.version = "4".to_owned();
        version.duration_seconds = Some(60);
        version.metrics = texts(&[("rmse", "0.42")]);
        version.tags = None;
        version.code = None;
    })
}

fn evaluate(
    source: &str,
    candidate: &ModelVersion,
    current: Option<&ModelVersion>,
) -> Result<bool, Unknown> {
    let model = ModelFacts {
        name: "nyc-taxi".to_owned(),
        latest_version: Some("5".to_owned()),
        aliases: texts(&[("champion", "5")]),
    };
    let binding = binding();
    let facts = Facts {
        candidate,
        current,
        model: &model,
        binding: &binding,
        now: now(),
    };
    match compile(source).as_ref() {
        Ok(expression) => expression.is_true(&facts),
        Err(fault) => panic!("{source}: {fault}"),
    }
}

fn result(source: &str) -> Result<bool, Unknown> {
    evaluate(source, &candidate(), Some(&current()))
}

fn absent(reason: &str) -> Result<bool, Unknown> {
    Err(Unknown::Absent(reason.to_owned()))
}

fn because(reason: &str) -> Result<bool, Unknown> {
    Err(Unknown::Because(reason.to_owned()))
}

/// The fault of a source, as people read it.
fn fault(source: &str) -> String {
    match compile(source).as_ref() {
        Ok(_) => panic!("{source} has no fault"),
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn the_gates_of_the_documentation_are_true_as_they_are_written() {
    for source in [
        "candidate.metrics.rmse <= current.metrics.rmse * 1.02",
        "candidate.sizeBytes < 500 * MiB",
        "candidate.durationSeconds < 2 * current.durationSeconds",
        "candidate.tags[\"validation\"] == \"passed\"",
        "has(candidate.code.commit)",
        "candidate.tags[\"Approval\"] == \"approved\"",
        "candidate.tags[\"pointsman.dev/eu-canary/ml/taxi\"].startsWith(\"Live\")",
        "candidate.tags[\"pointsman.dev/eu-canary/ml/taxi\"].startsWith(\"Live\") && candidate.age > duration(\"1h\")",
        "now - timestamp(candidate.tags[\"pointsman.dev/eu-canary/ml/taxi\"].split(\" \")[1]) > duration(\"1h\")",
        "current == null || candidate.metrics.r2 > 0.7",
        "!has(current.metrics.r2) || candidate.metrics.r2 >= current.metrics.r2",
        "candidate.datasets.exists(data, data.context == 'training')",
        "candidate.datasets.all(data, data.name in ['trips', 'zones'])",
        "int(candidate.parameters.max_depth) <= 12 && candidate.parameters['kind'] == 'forest'",
        "candidate.createdBy == 'kamal' && candidate.createdAt < now && model.name == 'nyc-taxi'",
        "binding.namespace == 'ml' && binding.alias == 'champion' && binding.name == 'taxi'",
        "candidate.metrics.rmse < 0.5 ? candidate.durationSeconds * 1.5 < 200 : false",
        "size(candidate.metrics) == 3 && 'rmse' in candidate.metrics && candidate.metrics.size() > 0",
        "candidate.version != current.version && int(candidate.version) > int(current.version)",
        "candidate.tags.exists(key, key.startsWith('pointsman.dev/') && candidate.tags[key].contains('Live'))",
        "model.aliases['champion'] == candidate.version && -1 < 0 && 7 % 4 == 3 && 'a' + 'b' == 'ab'",
        "[1, 2.5].map(x, x * 2).exists_one(x, x == 5) && [1, 2].filter(x, x > 1) .size() == 1",
        "candidate.createdAt + duration('30m') == timestamp('2026-11-23T10:30:00Z')",
    ] {
        assert_eq!(result(source), Ok(true), "{source}");
    }
}

#[test]
fn unknown_is_neither_true_nor_false_and_names_what_is_missing() {
    let missing = absent("candidate has no metric mae");
    for source in [
        "candidate.metrics.mae < 1",
        "!(candidate.metrics.mae < 1)",
        "candidate.metrics['mae'] < 1 && true",
        "candidate.metrics.mae < 1 || false",
        "candidate.metrics.mae < 1 ? true : true",
        "[1].exists(x, candidate.metrics.mae < x)",
        "[1].all(x, candidate.metrics.mae < x)",
    ] {
        assert_eq!(result(source), missing, "{source}");
    }
    assert_eq!(result("candidate.metrics.mae < 1 || true"), Ok(true));
    assert_eq!(result("candidate.metrics.mae < 1 && false"), Ok(false));
    assert_eq!(
        result("current.code.commit == 'a'"),
        absent("current has no code.commit")
    );
    assert_eq!(
        result("current.tags.validation == 'passed'"),
        because("current has no tag validation: its tags were not read yet")
    );
    assert_eq!(
        result("candidate.metrics.nan < 1"),
        because("metric nan of candidate is NaN")
    );
    assert_eq!(
        result("candidate.metrics.rmse / 0 - candidate.metrics.rmse / 0 < 1.0"),
        because("a number is NaN")
    );
    assert_eq!(result("1 / 0 == 1"), because("a number is divided by 0"));
    assert_eq!(
        result("9223372036854775807 + candidate.sizeBytes > 0"),
        because("a number is too large")
    );
    assert_eq!(
        result("[1][2] == 1"),
        because("a list of 1 items has no item 2")
    );
    let unsized_ = candidate().with(|version| version.size_bytes = None);
    assert_eq!(
        evaluate("candidate.sizeBytes < 1", &unsized_, None),
        absent("candidate has no sizeBytes")
    );
}

#[test]
fn details_that_are_left_out_are_unknown_also_to_has() {
    let omitted = candidate().with(|version| {
        version.details_omitted = true;
        version.metrics.clear();
        version.tags = None;
    });
    let left_out = "its details are left out of the mirror";
    for (source, name) in [
        ("has(candidate.metrics.rmse)", "metric rmse"),
        ("candidate.metrics.rmse < 1", "metric rmse"),
        ("size(candidate.metrics) == 0", "metrics"),
        ("'a' in candidate.tags", "tags"),
    ] {
        let message = format!("candidate has no {name}: {left_out}");
        assert_eq!(
            evaluate(source, &omitted, None),
            because(&message),
            "{source}"
        );
    }
}

#[test]
fn what_is_said_of_a_current_version_that_does_not_exist_hinders_nothing_unless_the_gate_says_so() {
    let first = |source: &str| evaluate(source, &candidate(), None);
    let none = Err(Unknown::NoCurrent);
    assert_eq!(
        first("candidate.metrics.rmse <= current.metrics.rmse"),
        none
    );
    assert_eq!(
        first("!(candidate.metrics.rmse > current.metrics.rmse)"),
        none
    );
    let both = "candidate.metrics.rmse <= current.metrics.rmse && candidate.tags.validation ==";
    assert_eq!(first(&format!("{both} 'passed'")), none);
    assert_eq!(first(&format!("{both} 'failed'")), Ok(false));
    assert_eq!(
        first("candidate.metrics.mae < current.metrics.mae && candidate.metrics.mae < 1"),
        absent("candidate has no metric mae")
    );
    assert_eq!(
        first("candidate.metrics.mae < 1 || current.version == '1'"),
        none
    );
    assert_eq!(
        first("current != null && current.version == '4'"),
        Ok(false)
    );
    assert_eq!(first("has(current.metrics.rmse)"), Ok(false));
    assert_eq!(first("current == null"), Ok(true));
}

const FAULTS: [(&str, &str); 17] = [
    (
        "candidat.version == '5'",
        "line 1, column 1: there is no variable candidat",
    ),
    (
        "true &&\n  x > 1",
        "line 2, column 3: there is no variable x",
    ),
    (
        "candidate.metrics.rmse",
        "line 1, column 18: this is a double, and is to be a bool",
    ),
    (
        "candidate.size < 1",
        "line 1, column 10: a version has no field size: it has version",
    ),
    (
        "candidate.version < 5",
        "line 1, column 19: < takes no string and int",
    ),
    (
        "'é' == 'é' && candidate.version < 5",
        "line 1, column 33: < takes no string and int",
    ),
    (
        "candidate.metrics.rmse == null",
        "line 1, column 24: == takes no double and null",
    ),
    ("1 +", "line 1, column 4: mismatched input"),
    ("(true", "line 1, column 6: expected ')'"),
    (
        "now > duration('1 fortnight')",
        "line 1, column 15: \"1 fortnight\" is no duration",
    ),
    (
        "candidate.source.matches('a')",
        "line 1, column 25: there is no function matches(string, string)",
    ),
    (
        "[[1]].size() == 1",
        "line 1, column 2: a list cannot hold a list(int)",
    ),
    (
        "{'a': 1}.size() == 1",
        "line 1, column 1: gates have no maps",
    ),
    (
        "has(candidate)",
        "line 1, column 5: invalid argument to has() macro",
    ),
    ("true // so", "line 1, column 7: gates have no comments"),
    ("'a\\'b' == 'a'", "line 1, column 3: gates have no \\"),
    (
        "'a\n' == 'a'",
        "line 1, column 3: this text has no closing quote",
    ),
];

#[test]
fn faults_are_told_with_line_and_column_before_anything_is_evaluated() {
    for (source, expected) in FAULTS {
        let found = fault(source);
        assert!(found.starts_with(expected), "{source}: {found}");
    }
}

#[test]
fn an_expression_that_is_too_long_or_nested_too_deeply_is_refused() {
    for source in [
        format!("{}1{} == 1", "(".repeat(500), ")".repeat(500)),
        format!("{}1{} == 1", "[".repeat(100), "]".repeat(100)),
        format!("{}true", "true ? true : ".repeat(60)),
        format!("1{} == 1", "+1".repeat(300)),
        format!("{}true", "!".repeat(900)),
        format!("'a'{} == true", " in ['a']".repeat(100)),
        format!("candidate{}", ".a".repeat(400)),
        "(".repeat(1000),
        format!("{}{}", ")".repeat(500), "(".repeat(500)),
        "(]".repeat(500),
        "a.b(".repeat(250),
        "\"".repeat(1001),
        "x".repeat(1025),
        "é".repeat(513),
    ] {
        assert!(compile(&source).is_err(), "{source}");
    }
    let wide = vec!["candidate.metrics.rmse < 1.0"; 32].join(" && ");
    assert_eq!(result(&wide), Ok(true));
}

/// A stack that is full ends the process. The operator's threads have two megabytes, as this test's, and a build that needs less.
#[test]
fn the_deepest_expressions_that_are_accepted_fit_on_a_stack() {
    let deepest = |source: &dyn Fn(usize) -> String| {
        let accepted = (1..200).rev().map(source);
        let mut accepted = accepted.filter(|source| Expression::of(source).is_ok());
        accepted.next().expect("one is accepted")
    };
    let sources = [
        deepest(&|n| format!("{}1{} == 1", "(".repeat(n), ")".repeat(n))),
        deepest(&|n| format!("{}1{} == 1", "(1 + ".repeat(n), ")".repeat(n))),
        deepest(&|n| format!("1{} == 1", " + 1".repeat(n))),
        deepest(&|n| format!("{}true", "true ? true : ".repeat(n))),
        deepest(&|n| format!("{}true", "!".repeat(n))),
        deepest(&|n| format!("{}1{} == 1", "[".repeat(n), "][0]".repeat(n))),
        deepest(&|n| format!("{}true{}", "[1].all(x, ".repeat(n), ")".repeat(n))),
        deepest(&|n| format!("true{}", " && true".repeat(n))),
        deepest(&|n| format!("(1 + (1 + (1 + (1 + (1{}))))) > 0", " + 1".repeat(n))),
        deepest(&|n| {
            format!(
                "[1].all(x, [1].all(y, (1{} + [1][0]) > 0))",
                " + 1".repeat(n)
            )
        }),
        deepest(&|n| format!("{}1{} == 1", "-(".repeat(n), ")".repeat(n))),
    ];
    for source in &sources {
        assert!(source.len() > 12, "{source}");
        let found = result(source);
        assert!(found.is_ok(), "{source}: {found:?}");
    }
}

#[test]
fn an_evaluation_ends_within_its_budget_of_steps() {
    let many = candidate().with(|version| {
        let tags = (0..64).map(|number| (format!("t{number:02}"), "x".repeat(250)));
        version.tags = Some(tags.collect());
    });
    let source =
        "candidate.tags.all(a, candidate.tags.all(b, candidate.tags.all(c, a + b + c != '')))";
    let started = Instant::now();
    let found = evaluate(source, &many, None);
    assert_eq!(found, because("it takes more than 10000 steps"));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_values_that_an_expression_reads_are_shown_and_do_not_move_with_time() {
    let source = "candidate.metrics.rmse <= current.metrics.rmse && candidate.age > duration('1h') \
        && current.tags['a/b'] == 'x' && size(candidate.tags) > 0 && model.name != ''";
    let compiled = compile(source);
    let expression = compiled.as_ref().as_ref().expect("no fault");
    assert!(expression.reads_time());
    let (candidate, current, model, binding) =
        (candidate(), current(), ModelFacts::default(), binding());
    let values = |now| {
        expression.values(&Facts {
            candidate: &candidate,
            current: Some(&current),
            model: &model,
            binding: &binding,
            now,
        })
    };
    let shown = |field: &str, candidate: Option<&str>, current: Option<&str>| GateValue {
        field: field.to_owned(),
        candidate: candidate.map(str::to_owned),
        current: current.map(str::to_owned),
    };
    let created = Some("2026-11-23T10:00:00Z");
    assert_eq!(
        values(now()),
        [
            shown("metrics.rmse", Some("0.41"), Some("0.42")),
            shown("createdAt", created, created),
            shown("tags.a/b", None, None),
        ]
    );
    assert_eq!(values(now()), values(at("2027-01-01T00:00:00Z")));
}
