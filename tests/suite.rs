#[path = "suite/wycheproof.rs"]
mod wycheproof;
