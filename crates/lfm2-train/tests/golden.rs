//! Methods of training against values of the reference implementation. Cases are found by listing; what
//! each is comes from its own file.

mod golden_cases;
