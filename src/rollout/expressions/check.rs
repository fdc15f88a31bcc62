//! Checks the types of a parsed expression, and turns it into nodes that can be evaluated.
//!
//! Absent: the parser, which is a library's; and CEL's bytes, unsigned numbers, structs, optional values and regular expressions.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use super::evaluate::parse_duration;
use super::node::{Arithmetic, Comprehension, Function, Literal, Node, Order};
use super::types::{CONSTANTS, Field, Record, RootVariable, Simple, Type, VARIABLES};

/// A fault of an expression, and the part of it that it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeFault {
    /// The parser's number for the part.
    pub id: u64,
    /// The fault.
    pub message: String,
}

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Its outermost node, which is true or false.
    pub root: Node,
    /// The attributes of versions that it reads, by name, each as a node of the candidate and of the current version.
    pub reads: Vec<Read>,
    /// Whether its result may change with time alone.
    pub reads_time: bool,
}

/// An attribute of versions that an expression reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Its name, such as `metrics.rmse`.
    pub name: String,
    /// The attribute of the candidate.
    pub candidate: Node,
    /// The attribute of the current version.
    pub current: Node,
}

type Typed = (Node, Type);
type Result<T> = std::result::Result<T, TypeFault>;

/// Checks an expression that is to be true or false.
///
/// # Errors
/// If a variable, field or function does not exist, or operands do not fit together.
pub fn check(expression: &IdedExpr) -> Result<Checked> {
    let mut checker = Checker::default();
    let (root, found) = checker.check(expression)?;
    expect(expression, found, Type::BOOL)?;
    Ok(Checked {
        root,
        reads: checker.reads,
        reads_time: checker.reads_time,
    })
}

#[derive(Default)]
struct Checker {
    /// The variables of the comprehensions around the expression, the outermost first.
    locals: Vec<(String, Type)>,
    reads: Vec<Read>,
    reads_time: bool,
}

impl Checker {
    fn check(&mut self, expression: &IdedExpr) -> Result<Typed> {
        match &expression.expr {
            Expr::Literal(literal) => self::literal(expression, literal),
            Expr::Ident(name) => self.identifier(expression, name),
            Expr::Select(select) => self.select(expression, select),
            Expr::Call(call) => self.call(expression, call),
            Expr::List(list) if list.optional_indices.is_empty() => self.list(&list.elements),
            _ => fault(expression, "gates have no maps, structs or optional values"),
        }
    }

    fn checked(&mut self, expression: &IdedExpr, wanted: Type) -> Result<Node> {
        let (node, found) = self.check(expression)?;
        expect(expression, found, wanted)?;
        Ok(node)
    }

    fn identifier(&mut self, expression: &IdedExpr, name: &str) -> Result<Typed> {
        let local = self.locals.iter().rposition(|(local, _)| local == name);
        if let Some(number) = local
            && let Some((_, found)) = self.locals.get(number)
        {
            return Ok((Node::Local(number), *found));
        }
        if let Some((_, value)) = CONSTANTS.iter().find(|(constant, _)| *constant == name) {
            return Ok((Node::Literal(Literal::Int(*value)), Type::INT));
        }
        let Some((_, variable, found)) = VARIABLES.iter().find(|each| each.0 == name) else {
            return fault(expression, format!("there is no variable {name}"));
        };
        self.reads_time |= *variable == RootVariable::Now;
        Ok((Node::Variable(*variable), *found))
    }

    fn select(&mut self, expression: &IdedExpr, select: &SelectExpr) -> Result<Typed> {
        let (operand, found) = self.check(&select.operand)?;
        let (node, found) = match found {
            Type::Simple(Simple::Record(record)) => {
                let Some((field, found)) = record.field(&select.field) else {
                    return fault(expression, no_field(record, &select.field));
                };
                self.reads_time |= field == Field::Age;
                (Node::Field(Box::new(operand), field), found)
            }
            Type::Map(values) => {
                let key = Node::Literal(Literal::String(select.field.clone()));
                (
                    Node::Index(Box::new(operand), Box::new(key)),
                    Type::Simple(values),
                )
            }
            _ => {
                return fault(
                    expression,
                    format!("a {found} has no field {}", select.field),
                );
            }
        };
        self.note_read(&node, found);
        Ok((node, found))
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Result<Typed> {
        let mut nodes = Vec::with_capacity(elements.len());
        let mut items: Option<Type> = None;
        for element in elements {
            let (node, found) = self.check(element)?;
            let Type::Simple(_) = found else {
                return fault(element, format!("a list cannot hold a {found}"));
            };
            items = match items.map_or(Some(found), |items| items.common(found)) {
                Some(common) => Some(common),
                None => return fault(element, "the items of a list are of different types"),
            };
            nodes.push(node);
        }
        let found = match items {
            Some(Type::Simple(items)) => Type::List(items),
            _ => Type::EmptyList,
        };
        Ok((Node::List(nodes), found))
    }

    fn call(&mut self, expression: &IdedExpr, call: &CallExpr) -> Result<Typed> {
        if let Some(target) = &call.target {
            return self.method(expression, call, target);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, parts) => Ok((Node::And(self.truths(parts)?), Type::BOOL)),
            (operators::LOGICAL_OR, parts) => Ok((Node::Or(self.truths(parts)?), Type::BOOL)),
            (operators::LOGICAL_NOT, [part]) => {
                let part = self.checked(part, Type::BOOL)?;
                Ok((Node::Not(Box::new(part)), Type::BOOL))
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let condition = self.checked(condition, Type::BOOL)?;
                let ((yes, of_yes), (no, of_no)) = (self.check(yes)?, self.check(no)?);
                let Some(found) = of_yes.common(of_no) else {
                    let message = format!("one result is a {of_yes}, the other a {of_no}");
                    return fault(expression, message);
                };
                Ok((Node::If(Box::new([condition, yes, no])), found))
            }
            (operators::NEGATE, [operand]) => {
                let (node, found) = self.check(operand)?;
                if !found.is_number() && found != Type::DURATION {
                    return fault(operand, format!("a {found} cannot be negated"));
                }
                Ok((Node::Negate(Box::new(node)), found))
            }
            (operators::INDEX, [container, key]) => self.index(expression, container, key),
            (operators::HAS, [argument]) => self.has(argument),
            (name, [left, right]) if is_operator(name) => {
                let (left, right) = (self.check(left)?, self.check(right)?);
                self::binary(expression, name, left, right)
            }
            (name, arguments) => self.function(expression, name, None, arguments),
        }
    }

    fn truths(&mut self, parts: &[IdedExpr]) -> Result<Vec<Node>> {
        let parts = parts.iter().map(|part| self.checked(part, Type::BOOL));
        parts.collect()
    }

    fn index(
        &mut self,
        expression: &IdedExpr,
        container: &IdedExpr,
        key: &IdedExpr,
    ) -> Result<Typed> {
        let (node, found) = self.check(container)?;
        let (wanted, items) = match found {
            Type::Map(values) => (Type::STRING, values),
            Type::List(items) => (Type::INT, items),
            _ => return fault(expression, format!("a {found} has no items")),
        };
        let key = self.checked(key, wanted)?;
        let node = Node::Index(Box::new(node), Box::new(key));
        self.note_read(&node, Type::Simple(items));
        Ok((node, Type::Simple(items)))
    }

    fn has(&mut self, argument: &IdedExpr) -> Result<Typed> {
        let (node, _) = self.check(argument)?;
        match node {
            Node::Field(..) | Node::Index(..) => Ok((Node::Has(Box::new(node)), Type::BOOL)),
            _ => fault(
                argument,
                "has() takes a field, such as has(candidate.code.commit)",
            ),
        }
    }

    fn method(
        &mut self,
        expression: &IdedExpr,
        call: &CallExpr,
        target: &IdedExpr,
    ) -> Result<Typed> {
        let kind = match call.func_name.as_str() {
            operators::ALL => Comprehension::All,
            operators::EXISTS => Comprehension::Exists,
            operators::EXISTS_ONE | "existsOne" => Comprehension::ExistsOne,
            operators::FILTER => Comprehension::Filter,
            operators::MAP => Comprehension::Map,
            name => return self.function(expression, name, Some(target), &call.args),
        };
        let [variable, body] = call.args.as_slice() else {
            let name = &call.func_name;
            return fault(
                expression,
                format!("{name} takes a variable and an expression"),
            );
        };
        let Expr::Ident(variable) = &variable.expr else {
            return fault(variable, "this is to be the name of a variable");
        };
        let (items, found) = self.check(target)?;
        let item = match found {
            Type::List(item) => Type::Simple(item),
            Type::Map(_) => Type::STRING,
            _ => return fault(target, format!("a {found} has no items")),
        };
        self.locals.push((variable.clone(), item));
        let checked = self.check(body);
        self.locals.pop();
        let (node, of_body) = checked?;
        let result = match (kind, of_body, item) {
            (Comprehension::Map, Type::Simple(results), _) => Type::List(results),
            (Comprehension::Map, ..) => {
                return fault(body, format!("a list cannot hold a {of_body}"));
            }
            (Comprehension::Filter, Type::BOOL, Type::Simple(items)) => Type::List(items),
            (_, Type::BOOL, _) => Type::BOOL,
            _ => return expect(body, of_body, Type::BOOL).map(|()| (node, of_body)),
        };
        Ok((Node::Comprehension(kind, Box::new([items, node])), result))
    }

    fn function(
        &mut self,
        expression: &IdedExpr,
        name: &str,
        target: Option<&IdedExpr>,
        arguments: &[IdedExpr],
    ) -> Result<Typed> {
        let is_method = target.is_some();
        let mut operands = Vec::with_capacity(arguments.len() + 1);
        for operand in target.into_iter().chain(arguments) {
            operands.push(self.check(operand)?);
        }
        let types: Vec<Type> = operands.iter().map(|(_, found)| *found).collect();
        let Some((function, result)) = function_of(name, is_method, &types) else {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            let types = types.join(", ");
            return fault(expression, format!("there is no function {name}({types})"));
        };
        let mut nodes: Vec<Node> = operands.into_iter().map(|(node, _)| node).collect();
        if let [Node::Literal(Literal::String(text))] = nodes.as_slice()
            && let Some(literal) = literal_of(function, text)
        {
            return match literal {
                Ok(literal) => Ok((Node::Literal(literal), result)),
                Err(message) => fault(expression, message),
            };
        }
        nodes.shrink_to_fit();
        Ok((Node::Call(function, nodes), result))
    }

    /// Notes the attribute of a version that a node reads, if it is a simple one.
    fn note_read(&mut self, node: &Node, found: Type) {
        let Type::Simple(simple) = found else {
            return;
        };
        if matches!(simple, Simple::Record(_)) {
            return;
        }
        // The age of a version changes at each look; the time that it is counted from does not.
        let node = match node {
            Node::Field(version, Field::Age) => &Node::Field(version.clone(), Field::CreatedAt),
            node => node,
        };
        let Some(name) = attribute(node) else {
            return;
        };
        if self.reads.iter().all(|read| read.name != name) {
            self.reads.push(Read {
                name,
                candidate: of(node, RootVariable::Candidate),
                current: of(node, RootVariable::Current),
            });
        }
    }
}

/// The name of an attribute of a version that is read by names only.
fn attribute(node: &Node) -> Option<String> {
    match node {
        Node::Field(record, field) => match record.as_ref() {
            Node::Variable(RootVariable::Candidate | RootVariable::Current) => {
                Some(field.name().to_owned())
            }
            record => Some(format!("{}.{}", attribute(record)?, field.name())),
        },
        Node::Index(map, key) => match key.as_ref() {
            Node::Literal(Literal::String(key)) => Some(format!("{}.{key}", attribute(map)?)),
            _ => None,
        },
        _ => None,
    }
}

/// The same attribute of another version.
fn of(node: &Node, version: RootVariable) -> Node {
    match node {
        Node::Field(record, field) => Node::Field(Box::new(of(record, version)), *field),
        Node::Index(map, key) => Node::Index(Box::new(of(map, version)), key.clone()),
        _ => Node::Variable(version),
    }
}

fn literal(expression: &IdedExpr, literal: &LiteralValue) -> Result<Typed> {
    let (literal, found) = match literal {
        LiteralValue::Boolean(value) => (Literal::Bool(*value.inner()), Type::BOOL),
        LiteralValue::Int(value) => (Literal::Int(*value.inner()), Type::INT),
        LiteralValue::Double(value) => (Literal::Double(*value.inner()), Type::DOUBLE),
        LiteralValue::String(value) => (Literal::String(value.inner().to_owned()), Type::STRING),
        LiteralValue::Null => (Literal::Null, Type::Null),
        LiteralValue::UInt(_) | LiteralValue::Bytes(_) => {
            return fault(expression, "gates have no unsigned numbers and no bytes");
        }
    };
    Ok((Node::Literal(literal), found))
}

fn is_operator(name: &str) -> bool {
    order(name).is_some()
        || arithmetic(name).is_some()
        || matches!(
            name,
            operators::EQUALS | operators::NOT_EQUALS | operators::IN
        )
}

fn order(name: &str) -> Option<Order> {
    Some(match name {
        operators::LESS => Order::Less,
        operators::LESS_EQUALS => Order::LessOrEqual,
        operators::GREATER => Order::Greater,
        operators::GREATER_EQUALS => Order::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}

fn binary(
    expression: &IdedExpr,
    name: &str,
    (left, of_left): Typed,
    (right, of_right): Typed,
) -> Result<Typed> {
    let sign = name.trim_matches(['_', '@']);
    let unfit = format!("{sign} takes no {of_left} and {of_right}");
    let operands = Box::new([left, right]);
    if let Some(order) = order(name) {
        if !is_ordered(of_left) || of_left.common(of_right).is_none() {
            return fault(expression, unfit);
        }
        return Ok((Node::Order(order, operands), Type::BOOL));
    }
    if let Some(operation) = arithmetic(name) {
        let Some(result) = result_of(operation, of_left, of_right) else {
            return fault(expression, unfit);
        };
        return Ok((Node::Arithmetic(operation, operands), result));
    }
    if name == operators::IN {
        let is_fitting = match of_right {
            Type::Map(_) => of_left == Type::STRING,
            Type::List(items) => is_equatable(of_left, Type::Simple(items)),
            Type::EmptyList => matches!(of_left, Type::Simple(_)),
            _ => false,
        };
        if !is_fitting {
            return fault(expression, unfit);
        }
        return Ok((Node::In(operands), Type::BOOL));
    }
    if !is_equatable(of_left, of_right) {
        return fault(expression, unfit);
    }
    let equal = Node::Equal(operands);
    let node = match name {
        operators::NOT_EQUALS => Node::Not(Box::new(equal)),
        _ => equal,
    };
    Ok((node, Type::BOOL))
}

fn is_ordered(found: Type) -> bool {
    found.is_number() || matches!(found, Type::STRING | Type::TIMESTAMP | Type::DURATION)
}

/// Whether values of these types can be compared: simple ones of one type, numbers, and a version with null.
fn is_equatable(left: Type, right: Type) -> bool {
    const VERSION: Type = Type::Simple(Simple::Record(Record::Version));
    match (left, right) {
        (Type::Null, VERSION) | (VERSION, Type::Null) => true,
        (Type::Simple(Simple::Record(_)), _) => false,
        (Type::Simple(_), Type::Simple(_)) => left.common(right).is_some(),
        _ => false,
    }
}

fn result_of(operation: Arithmetic, left: Type, right: Type) -> Option<Type> {
    use Arithmetic::{Add, Remainder, Subtract};
    match (operation, left, right) {
        (_, Type::INT, Type::INT) => Some(Type::INT),
        (Remainder, ..) => None,
        _ if left.is_number() && right.is_number() => Some(Type::DOUBLE),
        (Add, Type::STRING, Type::STRING) => Some(Type::STRING),
        (Add | Subtract, Type::DURATION, Type::DURATION)
        | (Subtract, Type::TIMESTAMP, Type::TIMESTAMP) => Some(Type::DURATION),
        (Add | Subtract, Type::TIMESTAMP, Type::DURATION)
        | (Add, Type::DURATION, Type::TIMESTAMP) => Some(Type::TIMESTAMP),
        _ => None,
    }
}

/// The function of this name for operands of these types, with the type of its result. A method's target is the first operand.
fn function_of(name: &str, is_method: bool, operands: &[Type]) -> Option<(Function, Type)> {
    const TEXT: Type = Type::STRING;
    let is_sized = |found: &Type| {
        matches!(
            *found,
            Type::STRING | Type::Map(_) | Type::List(_) | Type::EmptyList
        )
    };
    let is_written =
        |found: &Type| matches!(found, Type::Simple(found) if !matches!(found, Simple::Record(_)));
    Some(match (name, is_method, operands) {
        ("size", _, [value]) if is_sized(value) => (Function::Size, Type::INT),
        ("contains", true, [TEXT, TEXT]) => (Function::Contains, Type::BOOL),
        ("startsWith", true, [TEXT, TEXT]) => (Function::StartsWith, Type::BOOL),
        ("endsWith", true, [TEXT, TEXT]) => (Function::EndsWith, Type::BOOL),
        ("split", true, [TEXT, TEXT]) => (Function::Split, Type::List(Simple::String)),
        ("substring", true, [TEXT, Type::INT] | [TEXT, Type::INT, Type::INT]) => {
            (Function::Substring, TEXT)
        }
        ("int", false, [Type::INT | Type::DOUBLE | TEXT | Type::TIMESTAMP]) => {
            (Function::Int, Type::INT)
        }
        ("double", false, [Type::INT | Type::DOUBLE | TEXT]) => (Function::Double, Type::DOUBLE),
        ("string", false, [value]) if is_written(value) => (Function::String, TEXT),
        ("duration", false, [TEXT]) => (Function::Duration, Type::DURATION),
        ("timestamp", false, [TEXT]) => (Function::Timestamp, Type::TIMESTAMP),
        _ => return None,
    })
}

/// The value of a function of a text that is written in the expression, for functions that are worth it.
fn literal_of(function: Function, text: &str) -> Option<std::result::Result<Literal, String>> {
    match function {
        Function::Duration => Some(match parse_duration(text) {
            Some(duration) => Ok(Literal::Duration(duration)),
            None => Err(format!("{text:?} is no duration: write it like 1h30m")),
        }),
        Function::Timestamp => Some(match text.parse() {
            Ok(timestamp) => Ok(Literal::Timestamp(timestamp)),
            Err(_) => Err(format!(
                "{text:?} is no timestamp: write it like 2026-11-23T12:00:00Z"
            )),
        }),
        _ => None,
    }
}

fn no_field(record: Record, name: &str) -> String {
    let owner = Type::Simple(Simple::Record(record));
    format!(
        "a {owner} has no field {name}: it has {}",
        record.field_names()
    )
}

fn expect(expression: &IdedExpr, found: Type, wanted: Type) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    fault(
        expression,
        format!("this is a {found}, and is to be a {wanted}"),
    )
}

fn fault<T>(expression: &IdedExpr, message: impl Into<String>) -> Result<T> {
    Err(TypeFault {
        id: expression.id,
        message: message.into(),
    })
}
