//! The versioned protocol buffers and their generated code.
